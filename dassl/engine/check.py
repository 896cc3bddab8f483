"""Finds all mistakes in a configuration at once, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.samplers import AVAI_SAMPLERS
from dassl.data.transforms import AVAI_CHOICES, INTERPOLATION_MODES
from dassl.engine.build import TRAINER_REGISTRY
from dassl.evaluation import EVALUATOR_REGISTRY
from dassl.optim import AVAI_OPTIMS, AVAI_SCHEDS, AVAI_WARMUPS
from dassl.utils.errors import ConfigError, not_one_of


def check_cfg(cfg: CfgNode, plugins: Mapping[str, ModuleType]) -> None:
    """Raises ConfigError with all wrong values, and tells of files that did not load.

    Args:
        cfg: the whole configuration.
        plugins: key → package of what it may name, with `failed_imports`.
    """
    problems = config_problems(cfg)
    for key, package in plugins.items():
        if any(problem.startswith(key) for problem in problems):
            problems += [
                f"{package.__name__}/{file} could not be imported: {error!r}"
                for file, error in package.failed_imports.items()
            ]
    if problems:
        raise ConfigError(problems)


def config_problems(cfg: CfgNode) -> list[str]:
    """Returns a sentence for each wrong value among the engine's own keys; [] if there is none.

    The trainer named is asked as well, if its class has a `config_problems(cfg)` of its own.
    """
    problems = [*_wrong_choices(cfg), *_wrong_numbers(cfg)]
    if cfg.RESUME and not Path(cfg.RESUME).is_dir():
        problems.append(f"RESUME (--resume) is {cfg.RESUME}, which is no folder.")
    if cfg.TRAINER.NAME in TRAINER_REGISTRY:
        own_check = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "config_problems", None)
        problems += own_check(cfg) if own_check else []
    return problems


def _wrong_choices(cfg: CfgNode) -> list[str]:
    choices = [
        ("TRAINER.NAME", cfg.TRAINER.NAME, sorted(TRAINER_REGISTRY.registered_names())),
        ("DATASET.NAME", cfg.DATASET.NAME, sorted(DATASET_REGISTRY.registered_names())),
        ("OPTIM.NAME", cfg.OPTIM.NAME, AVAI_OPTIMS),
        ("OPTIM.LR_SCHEDULER", cfg.OPTIM.LR_SCHEDULER, AVAI_SCHEDS),
        ("INPUT.INTERPOLATION", cfg.INPUT.INTERPOLATION, INTERPOLATION_MODES),
        ("DATALOADER.TRAIN_X.SAMPLER", cfg.DATALOADER.TRAIN_X.SAMPLER, AVAI_SAMPLERS),
        ("DATALOADER.TRAIN_U.SAMPLER", cfg.DATALOADER.TRAIN_U.SAMPLER, AVAI_SAMPLERS),
        ("DATALOADER.TEST.SAMPLER", cfg.DATALOADER.TEST.SAMPLER, AVAI_SAMPLERS),
        ("TEST.EVALUATOR", cfg.TEST.EVALUATOR, EVALUATOR_REGISTRY.registered_names()),
        ("TEST.SPLIT", cfg.TEST.SPLIT, ("test", "val")),
        ("TEST.FINAL_MODEL", cfg.TEST.FINAL_MODEL, ("last_step", "best_val")),
        ("TRAIN.COUNT_ITER", cfg.TRAIN.COUNT_ITER, ("train_x", "train_u", "smaller_one")),
        *(("INPUT.TRANSFORMS", name, AVAI_CHOICES) for name in cfg.INPUT.TRANSFORMS),
    ]
    if cfg.OPTIM.WARMUP_EPOCH > 0:
        choices.append(("OPTIM.WARMUP_TYPE", cfg.OPTIM.WARMUP_TYPE, AVAI_WARMUPS))
    return [
        not_one_of(key, given, allowed) for key, given, allowed in choices if given not in allowed
    ]


def _wrong_numbers(cfg: CfgNode) -> list[str]:
    at_least = [
        ("OPTIM.MAX_EPOCH", cfg.OPTIM.MAX_EPOCH, 1),
        ("DATALOADER.TRAIN_X.BATCH_SIZE", cfg.DATALOADER.TRAIN_X.BATCH_SIZE, 1),
        ("DATALOADER.TEST.BATCH_SIZE", cfg.DATALOADER.TEST.BATCH_SIZE, 1),
        ("DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS, 0),
        ("DATALOADER.PROCESSES", cfg.DATALOADER.PROCESSES, 0),
        ("DATALOADER.CACHE_MB", cfg.DATALOADER.CACHE_MB, 0),
        ("DATALOADER.K_TRANSFORMS", cfg.DATALOADER.K_TRANSFORMS, 1),
        ("TRAIN.PRINT_FREQ", cfg.TRAIN.PRINT_FREQ, 1),
        ("TRAIN.CHECKPOINT_FREQ", cfg.TRAIN.CHECKPOINT_FREQ, -1),
        ("TRAIN.CHECKPOINT_SECONDS", cfg.TRAIN.CHECKPOINT_SECONDS, 0),
        ("OPTIM.LR", cfg.OPTIM.LR, 0),
    ]
    problems = [
        f"{key} is {given}; expected {low} or more." for key, given, low in at_least if given < low
    ]
    size = cfg.INPUT.SIZE
    if not isinstance(size, int) and (len(size) != 2 or min(size) < 1):
        problems.append(f"INPUT.SIZE is {size}; expected two numbers, height and width in pixels.")
    return problems
