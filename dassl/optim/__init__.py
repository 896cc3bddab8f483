"""Optimisers and learning-rate schedules, built from the OPTIM node of the configuration."""

from dassl.optim.lr_scheduler import (
    AVAI_SCHEDS,
    AVAI_WARMUPS,
    ConstantWarmupScheduler,
    LinearWarmupScheduler,
    build_lr_scheduler,
)
from dassl.optim.optimizer import AVAI_OPTIMS, build_optimizer
from dassl.optim.radam import RAdam

__all__ = [
    "AVAI_OPTIMS",
    "AVAI_SCHEDS",
    "AVAI_WARMUPS",
    "ConstantWarmupScheduler",
    "LinearWarmupScheduler",
    "RAdam",
    "build_lr_scheduler",
    "build_optimizer",
]
