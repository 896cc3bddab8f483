"""TRAINER.NAME → trainer."""

from __future__ import annotations

from yacs.config import CfgNode

from dassl.utils.logger import get_logger
from dassl.utils.registry import Registry

logger = get_logger(__name__)

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode):
    """Builds the trainer that TRAINER.NAME stands for.

    Raises:
        UnknownNameError: (a KeyError) there is none of that name.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        logger.info(f"Loading trainer: {cfg.TRAINER.NAME}")
    return trainer(cfg)
