"""What to type where a run's folder lacks what a section shows."""

from __future__ import annotations

import shlex

from dassl.command import command as started_by
from explore.runs import TESTED, ZEROSHOT, Seen, where
from pages import Code


def predictions(run: Seen) -> Code:
    """What leaves a run's predictions.csv."""
    said = f"{run.folder} holds no predictions.csv"
    if (run.folder / "run.json").is_file():
        return Code(f"{said}: type the sweep's command again, with --error-analysis at the end.")
    if not run.trained_here and run.learns:
        return Code(
            f"{said}: type the command that made it again, with TEST.ERROR_ANALYSIS True at the "
            "end."
        )
    command = [*_train(), "--config-file", str(run.folder / "config.yaml")]
    command += ["--eval-only", "--model-dir", str(run.folder)] if run.learns else ["--eval-only"]
    if run.learns and run.run.cfg.TEST.FINAL_MODEL == "last_step":
        command += ["--load-epoch", str(run.run.cfg.OPTIM.MAX_EPOCH)]
    command += ["--output-dir", str(run.folder / TESTED), "TEST.ERROR_ANALYSIS", "True"]
    return Code(f"{said}; this leaves one where this page looks for it:", shlex.join(command))


def zero_shot(run: Seen) -> Code:
    """What tests zero-shot CLIP on a run's classes."""
    command = [*_train(), "--config-file", str(run.folder / "config.yaml")]
    command += ["--trainer", "ZeroshotCLIP", "--eval-only"]
    command += ["--output-dir", str(run.folder / ZEROSHOT), "TEST.ERROR_ANALYSIS", "True"]
    said = f"No run of zero-shot CLIP on {where(run.test)}, is here to compare with"
    return Code(f"{said}; this makes one where this page looks for it:", shlex.join(command))


def new_classes(run: Seen) -> Code:
    """What tests a run's training on the classes that it did not see."""
    command = [*_train(), "--config-file", str(run.folder / "config.yaml")]
    command += ["--eval-only", "--model-dir", str(run.folder)]
    if run.run.cfg.TEST.FINAL_MODEL == "last_step":
        command += ["--load-epoch", str(run.run.cfg.OPTIM.MAX_EPOCH)]
    command += ["--subsample-classes", "new", "--output-dir", str(run.folder / "new")]
    said = f"{run.name} on {run.dataset} was not tested on new classes"
    return Code(f"{said}; this does it:", shlex.join([*command, "TEST.ERROR_ANALYSIS", "True"]))


def _train() -> list[str]:
    return started_by("train").split()
