"""TRAINER.NAME → trainer."""

from __future__ import annotations

from yacs.config import CfgNode

from dassl.engine.others import (
    missing_names_explained,
    says_that_it_is_in_half,
    says_what_asks_for_a_gpu,
)
from dassl.utils.device import device_of
from dassl.utils.logger import get_logger
from dassl.utils.registry import Registry
from dassl.utils.without_gpu import keep_on_the_cpu

logger = get_logger(__name__)

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode):
    """Builds the trainer that TRAINER.NAME stands for.

    On a run without a GPU, what other people's files take for granted is supplied (`OnTheCPU`),
    until another trainer is built.

    Raises:
        UnknownNameError: (a KeyError) there is none of that name.
        ConfigError: two files registered it; or its file asks for a setting, or for something about
            the data set, that nobody has written down.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        logger.info(f"Loading trainer: {cfg.TRAINER.NAME}")
    without_gpu = device_of(cfg).type == "cpu"
    asks = without_gpu and says_what_asks_for_a_gpu(trainer)
    keep_on_the_cpu(asks)
    with missing_names_explained(cfg):
        built = trainer(cfg)
    keep_on_the_cpu(asks or (without_gpu and says_that_it_is_in_half(built)))
    return built
