"""Training loops with hooks, and how a configuration finds a trainer."""

from dassl.engine.build import TRAINER_REGISTRY, build_trainer
from dassl.engine.check import config_problems
from dassl.engine.trainer import SimpleTrainer, TrainerBase, TrainerX, TrainerXU

__all__ = [
    "TRAINER_REGISTRY",
    "SimpleTrainer",
    "TrainerBase",
    "TrainerX",
    "TrainerXU",
    "build_trainer",
    "config_problems",
]
