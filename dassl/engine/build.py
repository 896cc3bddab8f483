"""TRAINER.NAME → trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from dassl.engine.base import TrainerBase

logger = get_logger(__name__)

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> TrainerBase:
    """Builds the trainer that TRAINER.NAME stands for.

    Raises:
        UnknownNameError: (a KeyError) there is none of that name.
        ConfigError: two files registered it; or its file asks for a setting, or for something about
            the data set, that nobody has written down.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        logger.info(f"Loading trainer: {cfg.TRAINER.NAME}")
    return supplied(trainer, cfg, lambda: trainer(cfg))


def supplied(trainer: type, cfg: CfgNode, build: Callable[[], TrainerBase]) -> TrainerBase:
    """Builds a trainer where there is what other people's files take for granted.

    On a run without a GPU that is `OnTheCPU`, until another trainer is built.

    Args:
        trainer: the class.
        cfg: its configuration.
        build: makes one.

    Raises:
        ConfigError: see `build_trainer`.
    """
    without_gpu = device_of(cfg).type == "cpu"
    asks = without_gpu and says_what_asks_for_a_gpu(trainer)
    keep_on_the_cpu(asks)
    with missing_names_explained(trainer, cfg):
        built = build()
    if without_gpu:
        built.device = device_of(cfg)  # it may have set one that is not there
    keep_on_the_cpu(asks or (without_gpu and says_that_it_is_in_half(built)))
    return built
