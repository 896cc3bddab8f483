"""Means, spreads and the comparison with a published number: pure functions on accuracies."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

PAPER_SEEDS = 3  # the papers' numbers are means over three
ROUNDING = 0.005  # of a number printed with two decimals
NO_SEED_TOLERANCE = 0.1  # points; half precision moves a few images of a method without seeds


@dataclass(frozen=True)
class Value:
    """One number of a table.

    Attributes:
        mean: in per cent; None: missing.
        samples: seed → the number of that seed; its spread is shown.
        wanted: number of seeds asked for.
        paper: the paper's number; None: not known, or there is none.
        exact: nothing about the method is random.
        text: shown instead of numbers.
    """

    mean: float | None
    samples: Mapping[int, float] = field(default_factory=dict)
    wanted: int = 0
    paper: float | None = None
    exact: bool = False
    text: str = ""

    @property
    def n(self) -> int:
        return len(self.samples)

    @property
    def complete(self) -> bool:
        return self.mean is not None and self.n >= self.wanted

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None with fewer than two seeds."""
        return statistics.stdev(self.samples.values()) if self.n > 1 else None

    @property
    def difference(self) -> float | None:
        return None if self.mean is None or self.paper is None else self.mean - self.paper

    @property
    def within(self) -> bool | None:
        """Whether the seeds' spread explains the difference; None: that cannot be told.

        The paper's number is a mean over three seeds whose spread is taken to be ours, s; the
        difference of the means then has the standard error s * sqrt(1/n + 1/3), and Student's t
        with n - 1 degrees of freedom gives the 95% interval. Methods without seeds may differ
        by 0.1 points.
        """
        if self.difference is None:
            return None
        if self.exact:
            return abs(self.difference) <= NO_SEED_TOLERANCE + ROUNDING
        if self.std is None:
            return None
        margin = student_t(self.n) * self.std * math.sqrt(1 / self.n + 1 / PAPER_SEEDS)
        return abs(self.difference) <= margin + ROUNDING


@cache
def student_t(n: int) -> float:
    """Returns the 97.5% quantile of Student's t for the mean of `n` numbers: n - 1 degrees."""
    from scipy.stats import t  # takes a second to import, which most commands do without

    return float(t.ppf(0.975, n - 1))


def value(
    samples: Mapping[int, float], wanted: int, paper: float | None = None, exact: bool = False
) -> Value:
    """Returns the mean over seeds, or a missing value if there are none."""
    mean = statistics.mean(samples.values()) if samples else None
    return Value(mean, dict(samples), wanted, paper, exact)


def harmonic(base: float, new: float) -> float:
    """H of base and new accuracy (CoCoOp, arXiv 2203.05557, section 4.1)."""
    return 2 * base * new / (base + new) if base + new else 0.0


def harmonic_value(base: Value, new: Value, paper: float | None = None) -> Value:
    """Returns H of the seed-averaged base and new, as in the papers; its spread is that per seed.

    Missing unless both are complete.
    """
    seeds = base.samples.keys() & new.samples.keys()
    samples = {seed: harmonic(base.samples[seed], new.samples[seed]) for seed in sorted(seeds)}
    mean = harmonic(base.mean, new.mean) if base.complete and new.complete else None
    wanted = max(base.wanted, new.wanted)
    return Value(mean, samples, wanted, paper, base.exact and new.exact)


def average_value(values: Sequence[Value], paper: float | None = None) -> Value:
    """Returns the mean over datasets; missing unless every one is complete."""
    complete = bool(values) and all(v.complete for v in values)
    seeds = set.intersection(*(set(v.samples) for v in values)) if values else set()
    samples = {s: statistics.mean(v.samples[s] for v in values) for s in sorted(seeds)}
    mean = statistics.mean(v.mean for v in values) if complete else None
    wanted = max((v.wanted for v in values), default=0)
    return Value(mean, samples, wanted, paper, all(v.exact for v in values))
