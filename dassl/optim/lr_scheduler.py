"""Learning-rate schedules, counted in epochs, with an optional warm-up in front.

Call `step()` once at the end of each epoch. With a warm-up of W epochs the warm-up scheduler sets
the rate of epochs 0 .. W-1 and then hands over to its successor, which starts at the full rate.

The formulas are torch's recursive ones (each rate follows from the previous one), because the
public implementation's numbers come from them. Cosine: SGDR, arXiv 1608.03983, eq. 5, without
restarts and with eta_min = 0.

What a checkpoint restores: the position and the rates (`last_epoch`, `_step_count`, `_last_lr`,
`base_lrs`), for the warm-up and for its successor. What it does not: the settings (`T_max`,
`eta_min`, `step_size`, `gamma`, `milestones`, `warmup_epoch`, `cons_lr`, `min_lr`); those come from
the configuration of the run that resumes. With a larger OPTIM.MAX_EPOCH the rate therefore goes on
from its saved value along the longer curve; it does not jump to where the longer curve would be.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer, lr_scheduler
from yacs.config import CfgNode

from dassl.utils.errors import CheckpointError, ConfigError, not_one_of
from dassl.utils.logger import get_logger

logger = get_logger(__name__)

AVAI_SCHEDS = ("single_step", "multi_step", "cosine")
AVAI_WARMUPS = ("linear", "constant")

_PROGRESS = ("last_epoch", "_step_count", "_last_lr", "base_lrs")
_NOT_SETTINGS = (*_PROGRESS, "optimizer", "successor", "verbose")


class _StepsizeError(ConfigError, TypeError):
    """OPTIM.STEPSIZE has the wrong type. A TypeError, as in the public implementation."""


class _PlainState:
    """Gives a scheduler a state of plain data, of which loading restores only the progress."""

    optimizer: Optimizer

    def state_dict(self) -> dict[str, Any]:
        """Returns the settings, for the record, and the progress.

        `torch.load(weights_only=True)` accepts every value.
        """
        state = {key: value for key, value in vars(self).items() if key != "optimizer"}
        if "successor" in state:
            state["successor"] = state["successor"].state_dict()
        return {k: dict(v) if isinstance(v, Counter) else v for k, v in state.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores the progress and leaves the settings as configured (see the module's text).

        Raises:
            CheckpointError: (a ValueError) the state belongs to another kind of schedule, or to
                another number of parameter groups.
        """
        missing = [key for key in _PROGRESS if key not in state_dict]
        if missing:
            raise CheckpointError(
                f"the saved schedule of {type(self).__name__} lacks {', '.join(missing)}"
            )
        if ("successor" in state_dict) != hasattr(self, "successor"):
            saved, own = ("with", "without") if "successor" in state_dict else ("without", "with")
            raise CheckpointError(
                f"the checkpoint was saved {saved} a warm-up and this run is configured {own} one; "
                "set OPTIM.WARMUP_EPOCH as in the saved run"
            )
        n_saved, n_groups = len(state_dict["base_lrs"]), len(self.optimizer.param_groups)
        if n_saved != n_groups:
            raise CheckpointError(
                f"the saved schedule has rates for {n_saved} parameter groups, the optimizer has "
                f"{n_groups}; set OPTIM.STAGED_LR as in the saved run"
            )
        self._warn_about_other_settings(state_dict)
        # Copies: the dictionary may be the live state of another scheduler.
        vars(self).update({key: copy.deepcopy(state_dict[key]) for key in _PROGRESS})

    def _warn_about_other_settings(self, state_dict: Mapping[str, Any]) -> None:
        for key, own in vars(self).items():
            if key.startswith("_") or key in _NOT_SETTINGS or state_dict.get(key) == own:
                continue
            logger.warning(
                "The learning-rate schedule was saved with %s %s and goes on with %s from its "
                "saved rate of %s",
                key,
                state_dict.get(key, "unset"),
                own,
                ", ".join(f"{rate:.4e}" for rate in state_dict["_last_lr"]),
            )


# The names of torch's classes are kept: they are what `type(scheduler).__name__` shows elsewhere.
class CosineAnnealingLR(_PlainState, lr_scheduler.CosineAnnealingLR):
    """torch's schedule; see `_PlainState` for its checkpoints."""


class StepLR(_PlainState, lr_scheduler.StepLR):
    """torch's schedule; see `_PlainState` for its checkpoints."""


class MultiStepLR(_PlainState, lr_scheduler.MultiStepLR):
    """torch's schedule; see `_PlainState` for its checkpoints."""


class _BaseWarmupScheduler(_PlainState, lr_scheduler.LRScheduler):
    """Sets the rate for `warmup_epoch` epochs, then lets `successor` do it.

    Its own `last_epoch` stays at `warmup_epoch` after the warm-up; the successor counts on.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        successor: lr_scheduler.LRScheduler,
        warmup_epoch: int,
        last_epoch: int = -1,
        verbose: bool = False,  # accepted for old callers; torch no longer prints rates
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self) -> list[float]:
        """Returns the rate of each parameter group in epoch `last_epoch` of the warm-up."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        if self.last_epoch < self.warmup_epoch:
            return self.warmup_lr()
        return self.successor.get_last_lr()  # the successor has not stepped: its first rate

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < self.warmup_epoch:
            super().step(epoch)
        else:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores the progress of the warm-up and of its successor.

        Args:
            state_dict: from `state_dict()`, or in the public implementation's form, where
                "successor" is the scheduler object itself. Of such an object only the attributes
                are read. Its `optimizer` is ignored: it is a copy that no model belongs to, and
                stepping it is why the public implementation's rate freezes after a resume.
        """
        super().load_state_dict(state_dict)
        successor = state_dict["successor"]
        state = successor if isinstance(successor, Mapping) else vars(successor)
        self.successor.load_state_dict({k: v for k, v in state.items() if k != "optimizer"})


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up at the fixed rate `cons_lr`, the same for all parameter groups."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: lr_scheduler.LRScheduler,
        warmup_epoch: int,
        cons_lr: float,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch, verbose)

    def warmup_lr(self) -> list[float]:
        return [self.cons_lr] * len(self.base_lrs)


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up along lr * e / W in epoch e of W; epoch 0, where that is zero, has `min_lr`."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: lr_scheduler.LRScheduler,
        warmup_epoch: int,
        min_lr: float,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch, verbose)

    def warmup_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [self.min_lr] * len(self.base_lrs)
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> lr_scheduler.LRScheduler:
    """Builds the schedule that `OPTIM.LR_SCHEDULER` and the `OPTIM.WARMUP_*` keys ask for.

    Raises:
        ConfigError: (a ValueError) an unknown schedule or warm-up type.
        TypeError: OPTIM.STEPSIZE does not suit the schedule.
    """
    name, warmup, n_warmup = optim_cfg.LR_SCHEDULER, optim_cfg.WARMUP_TYPE, optim_cfg.WARMUP_EPOCH
    if name not in AVAI_SCHEDS:
        raise ConfigError(not_one_of("OPTIM.LR_SCHEDULER", name, AVAI_SCHEDS))
    if n_warmup > 0 and warmup not in AVAI_WARMUPS:
        raise ConfigError(not_one_of("OPTIM.WARMUP_TYPE", warmup, AVAI_WARMUPS))
    if name == "single_step":
        scheduler = StepLR(optimizer, _single_stepsize(optim_cfg), optim_cfg.GAMMA)
    elif name == "multi_step":
        scheduler = MultiStepLR(optimizer, _milestones(optim_cfg), optim_cfg.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, float(optim_cfg.MAX_EPOCH))
    if n_warmup <= 0:
        return scheduler
    if not optim_cfg.WARMUP_RECOUNT:
        # The warm-up's epochs count, yet the recursion starts from the full rate.
        scheduler.last_epoch = n_warmup
    if warmup == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, n_warmup, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, scheduler, n_warmup, optim_cfg.WARMUP_MIN_LR)


def _single_stepsize(optim_cfg: CfgNode) -> int:
    """The step of single_step: an integer, or the last entry of a sequence.

    Not above 0 means OPTIM.MAX_EPOCH, that is, no decay during the run.
    """
    given = optim_cfg.STEPSIZE
    stepsize = given[-1] if isinstance(given, (list, tuple)) and given else given
    if not isinstance(stepsize, int):
        raise _StepsizeError(
            f"OPTIM.STEPSIZE is {given!r}; single_step takes a whole number of epochs, or a list "
            "or tuple that ends with one, for example (20,)"
        )
    return stepsize if stepsize > 0 else optim_cfg.MAX_EPOCH


def _milestones(optim_cfg: CfgNode) -> tuple[int, ...]:
    """The epochs after which multi_step multiplies the rate by OPTIM.GAMMA."""
    given = optim_cfg.STEPSIZE
    if not isinstance(given, (list, tuple)) or not all(isinstance(e, int) for e in given):
        raise _StepsizeError(
            f"OPTIM.STEPSIZE is {given!r}; multi_step takes a list or tuple of whole numbers of "
            "epochs, for example (60, 80)"
        )
    return tuple(given)
