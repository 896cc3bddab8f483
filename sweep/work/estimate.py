"""How long runs take: a rough model, corrected by the runs that are finished."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

from sweep.plan.recipes import EMBEDDED, PAPER_NAMES
from sweep.plan.run import ROOT, Run

# Milliseconds per training image on one GPU: CoOp 6 and CoCoOp 160 with ViT-B/16, a third party's
# timing (cocoop_ablations.csv, cocoop_training_cost). CoCoOp encodes one prompt per image and
# class, so its tests take as long per image as they have classes.
TRAIN_MS = {"CoOp": 6.0, "CoCoOp": 160.0, "LinearProbe": 30.0}
TEST_MS = 3.0
COCOOP_TEST_MS_PER_CLASS = 0.3
START = 15.0  # seconds to load CLIP and list the images
# The embedded CLIP on one CPU core, from the records of scripts/demo.py.
SMALL_TRAIN_MS = {"CoOp": 1.0, "CoCoOp": 4.0, "LinearProbe": 1.0}
SMALL_TEST_MS = 1.0
SMALL_START = 1.0
UNKNOWN = (100, 5000)  # classes and test images of a data set that the papers do not have


@cache
def sizes(dataset: str) -> tuple[int, int]:
    """Returns the number of classes and of test images."""
    if dataset == EMBEDDED:
        return 10, 540
    path = ROOT / "sweep" / "paper" / "dataset_facts.csv"
    with path.open(encoding="utf-8", newline="") as file:
        facts = {(row["dataset"], row["field"]): row["value"] for row in csv.DictReader(file)}
    name = PAPER_NAMES.get(dataset, dataset)
    if (name, "n_classes") not in facts:
        return UNKNOWN
    return int(facts[name, "n_classes"]), int(facts[name, "test_size"])


def model_seconds(run: Run) -> float:
    """Returns a rough guess for one GPU; for the embedded default, for one CPU core."""
    n_cls, n_test = sizes(run.dataset)
    if run.classes != "all":
        n_cls, n_test = math.ceil(n_cls / 2), math.ceil(n_test / 2)
    small = run.dataset == EMBEDDED
    train_ms, per_test = (SMALL_TRAIN_MS, SMALL_TEST_MS) if small else (TRAIN_MS, TEST_MS)
    if run.trainer == "CoCoOp":
        per_test += COCOOP_TEST_MS_PER_CLASS * n_cls
    seconds = (SMALL_START if small else START) + n_test * per_test / 1000
    if trains(run):
        n_train = n_cls * run.shots * run.epochs
        seconds += n_train * train_ms.get(run.trainer, train_ms["CoOp"]) / 1000
    return seconds


def trains(run: Run) -> bool:
    return run.source is None and run.shots > 0


class Estimator:
    """Predicts seconds; learns, per trainer and kind of run, how far the model is off.

    Runs of a kind that none has been done of go by all trainings: the others are little more than
    their start, which tells nothing of what comes after it.
    """

    def __init__(self) -> None:
        self.sums: dict[tuple, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def learn(self, run: Run, seconds: float) -> None:
        for key in (_kind(run), ()) if trains(run) else (_kind(run),):
            self.sums[key][0] += seconds
            self.sums[key][1] += model_seconds(run)

    def seconds(self, run: Run) -> float:
        for key in (_kind(run), ()):
            if key in self.sums:
                measured, modelled = self.sums[key]
                return model_seconds(run) * measured / modelled
        return model_seconds(run)

    def total(self, runs: Iterable[Run], jobs: int = 1) -> float:
        """Returns the time for several runs, `jobs` at once."""
        each = [self.seconds(run) for run in runs]
        return max([sum(each) / jobs, *each]) if each else 0.0

    @property
    def measured(self) -> bool:
        return bool(self.sums)


def _kind(run: Run) -> tuple:
    return run.trainer, run.source is None, run.dataset == EMBEDDED


def duration(seconds: float) -> str:
    """Returns "45 s", "12 min", "3 h 20 min" or "4 days 5 h"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"
