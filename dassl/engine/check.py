"""Finds all mistakes in a configuration at once, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from math import inf
from operator import getitem
from pathlib import Path
from types import ModuleType

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.samplers import AVAI_SAMPLERS
from dassl.data.transforms import AVAI_CHOICES, INTERPOLATION_MODES
from dassl.engine.build import TRAINER_REGISTRY
from dassl.engine.wandb_writer import wandb_problems
from dassl.evaluation import EVALUATOR_REGISTRY
from dassl.optim import AVAI_OPTIMS, AVAI_SCHEDS, AVAI_WARMUPS
from dassl.utils.errors import ConfigError, not_one_of
from dassl.utils.registry import file_of

# The smallest and the largest value of keys. Outside, a step would go up the gradient, or nowhere.
_BOUNDS: dict[str, tuple[float, float]] = {
    "OPTIM.MAX_EPOCH TRAIN.PRINT_FREQ DATALOADER.K_TRANSFORMS": (1, inf),
    "DATALOADER.TRAIN_X.BATCH_SIZE DATALOADER.TRAIN_U.BATCH_SIZE": (1, inf),
    "DATALOADER.TEST.BATCH_SIZE DATALOADER.TRAIN_X.N_INS DATALOADER.TRAIN_U.N_INS": (1, inf),
    "DATALOADER.NUM_WORKERS DATALOADER.PROCESSES": (0, inf),
    "DATALOADER.CACHE_MB": (-1, inf),
    "TRAIN.CHECKPOINT_FREQ": (-1, inf),  # -1: as 0, the default of public recipes
    "TRAIN.CHECKPOINT_SECONDS": (0, inf),
    "OPTIM.LR OPTIM.WEIGHT_DECAY OPTIM.GAMMA OPTIM.BASE_LR_MULT": (0, inf),
    "OPTIM.WARMUP_CONS_LR OPTIM.WARMUP_MIN_LR": (0, inf),
    "OPTIM.MOMENTUM OPTIM.SGD_DAMPNING OPTIM.RMSPROP_ALPHA": (0, 1),
    "OPTIM.ADAM_BETA1 OPTIM.ADAM_BETA2": (0, 1),
    "INPUT.CROP_PADDING INPUT.CUTOUT_N INPUT.CUTOUT_LEN INPUT.RANDAUGMENT_N": (0, inf),
    "INPUT.GN_STD INPUT.COLORJITTER_B INPUT.COLORJITTER_C INPUT.COLORJITTER_S": (0, inf),
    "INPUT.COLORJITTER_H": (0, 0.5),
    "INPUT.RGS_P INPUT.GB_P": (0, 1),
}


def check_cfg(cfg: CfgNode, plugins: Mapping[str, ModuleType], complete: bool = True) -> None:
    """Raises ConfigError with all wrong values, and tells of files that did not load.

    Args:
        cfg: the whole configuration.
        plugins: key → package of what it may name, with `failed_imports`.
        complete: False: a file of settings is missing, which is told of elsewhere; keys that are
            empty for want of it are no mistakes of their own.
    """
    problems = config_problems(cfg)
    if not complete:
        problems = [problem for problem in problems if " is ''; " not in problem]
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
    problems = [*_wrong_choices(cfg), *_wrong_numbers(cfg), *wandb_problems(cfg)]
    if cfg.RESUME and not Path(cfg.RESUME).expanduser().is_dir():
        problems.append(f"RESUME (--resume) is {cfg.RESUME}, which is no folder.")
    if cfg.TRAINER.NAME in TRAINER_REGISTRY:
        trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        if hasattr(trainer, "config_problems"):
            problems += trainer.config_problems(cfg)
        elif cfg.MODEL.BACKBONE.PATH and not _mentions(trainer, "BACKBONE.PATH"):
            problems.append(
                f"MODEL.BACKBONE.PATH (--backbone-path) is set, which {cfg.TRAINER.NAME} does not "
                "read; give the file as MODEL.BACKBONE.NAME (--backbone)."
            )
    return problems


def _mentions(trainer: type, key: str) -> bool:
    file = file_of(trainer)
    return file.is_file() and key in file.read_text(encoding="utf-8")


def _optimizers(cfg: CfgNode) -> list[str]:
    """Returns OPTIM, and the nodes OPTIM_... of methods that have a second network."""
    return [name for name in cfg if name == "OPTIM" or name.startswith("OPTIM_")]


def _wrong_choices(cfg: CfgNode) -> list[str]:
    choices = [
        ("TRAINER.NAME", cfg.TRAINER.NAME, sorted(TRAINER_REGISTRY.registered_names())),
        ("DATASET.NAME", cfg.DATASET.NAME, sorted(DATASET_REGISTRY.registered_names())),
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
    for name in _optimizers(cfg):
        node = cfg[name]
        choices += [(f"{name}.NAME", node.NAME, AVAI_OPTIMS)]
        choices += [(f"{name}.LR_SCHEDULER", node.LR_SCHEDULER, AVAI_SCHEDS)]
        if node.WARMUP_EPOCH > 0:
            choices.append((f"{name}.WARMUP_TYPE", node.WARMUP_TYPE, AVAI_WARMUPS))
    return [
        not_one_of(key, given, allowed) for key, given, allowed in choices if given not in allowed
    ]


def _wrong_numbers(cfg: CfgNode) -> list[str]:
    problems = []
    for keys, (low, high) in _BOUNDS.items():
        names = [name for key in keys.split() for name in _same_in_all(key, cfg)]
        for key in names:
            given = reduce(getitem, key.split("."), cfg)
            if given < low:
                expected = f"{low} or more" if high == inf else f"{low} to {high}"
                problems.append(f"{key} is {given}; expected {expected}.")
            elif given > high:
                problems.append(f"{key} is {given}; expected {low} to {high}.")
    return problems + _wrong_pictures(cfg.INPUT)


def _same_in_all(key: str, cfg: CfgNode) -> list[str]:
    """Returns a key of OPTIM in all optimizers' nodes; any other alone."""
    node, _, leaf = key.partition(".")
    return [f"{name}.{leaf}" for name in _optimizers(cfg)] if node == "OPTIM" else [key]


def _wrong_pictures(node: CfgNode) -> list[str]:
    """What is wrong with the numbers that belong together."""
    size = node.SIZE if not isinstance(node.SIZE, int) else (node.SIZE, node.SIZE)
    scale = node.RRCROP_SCALE
    expected = {
        "SIZE": (
            len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size),
            "two whole numbers, height and width in pixels",
        ),
        "PIXEL_MEAN": (len(node.PIXEL_MEAN) in (1, 3), "a number for each colour, three in all"),
        "PIXEL_STD": (
            len(node.PIXEL_STD) in (1, 3) and min(node.PIXEL_STD) > 0,
            "a number above 0 for each colour, three in all",
        ),
        "RRCROP_SCALE": (
            len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1,
            "the smallest and the largest share of an image, above 0 and up to 1",
        ),
        "GB_K": (node.GB_K > 0 and node.GB_K % 2 == 1, "an odd number of pixels"),
    }
    return [
        f"INPUT.{key} is {node[key]}; expected {what}."
        for key, (right, what) in expected.items()
        if not right
    ]
