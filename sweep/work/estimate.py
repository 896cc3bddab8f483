"""How long runs take, learned from the finished runs of the same kind: there is no other basis."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from dassl.engine.identity import flat
from dassl.utils.text import counted
from sweep.plan.run import Run


@dataclass(frozen=True)
class TimeLeft:
    """The time that runs will take, as far as it is known.

    Attributes:
        seconds: until those are done whose time is known.
        known: their number.
        unknown: number of runs of a kind that none is finished of.
    """

    seconds: float
    known: int
    unknown: int

    def __str__(self) -> str:
        if not self.unknown:
            return f"about {duration(self.seconds)} left"
        if self.seconds < 1:
            return "time left unknown"
        total = counted(self.known + self.unknown, "run")
        return f"at least {duration(self.seconds)} left, unknown for {self.unknown} of {total}"


class Estimator:
    """Predicts the seconds of runs of a kind that some are finished of.

    Runs of a kind differ in nothing but their seed; trainings also in epochs and in images per
    class, with which their time grows along a straight line. So a training with as many images is
    predicted by the mean, and one with more or fewer only once two numbers of images are finished.
    """

    def __init__(self) -> None:
        self.finished: dict[str, list[tuple[int, float]]] = defaultdict(list)  # images, seconds

    def learn(self, run: Run, seconds: float) -> None:
        """Takes in how long a run took."""
        self.finished[_kind(run)].append((_images(run), seconds))

    def seconds(self, run: Run) -> float | None:
        """Returns how long a run will take; None: unknown."""
        finished, images = self.finished.get(_kind(run), []), _images(run)
        same = [seconds for n, seconds in finished if n == images]
        if same:
            return statistics.mean(same)
        counts, times = [n for n, _ in finished], [seconds for _, seconds in finished]
        if len(set(counts)) < 2:
            return None  # how much of it is the start, which does not grow, cannot be told
        slope, start = statistics.linear_regression(counts, times)
        return max(start + slope * images, min(times))

    def time_left(self, runs: Iterable[Run], at_once: int = 1) -> TimeLeft:
        """Returns the time that runs will take, `at_once` of them at the same time."""
        each = [self.seconds(run) for run in runs]
        known = [seconds for seconds in each if seconds is not None]
        longest = max(known, default=0.0)
        return TimeLeft(max(sum(known) / at_once, longest), len(known), len(each) - len(known))


@cache
def _kind(run: Run) -> str:
    settings = flat(run.settings)
    del settings["OPTIM.MAX_EPOCH"], settings["DATASET.NUM_SHOTS"]
    return json.dumps([run.trains, run.dataset, settings], sort_keys=True)


def _images(run: Run) -> int:
    """Returns the training images per class, over all epochs."""
    return run.shots * run.epochs if run.trains else 0


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
