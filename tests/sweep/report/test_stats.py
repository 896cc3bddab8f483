"""Student's t in the comparison with the paper: known quantiles, and the margin they give."""

import math

import pytest

from sweep.report.stats import ROUNDING, student_t, value

# Number of seeds → 97.5% quantile with one degree of freedom less, from printed tables.
KNOWN = {2: 12.706, 3: 4.303, 4: 3.182, 11: 2.228, 12: 2.201, 31: 2.042}


@pytest.mark.parametrize("n", KNOWN)
def test_known_quantiles(n: int):
    assert student_t(n) == pytest.approx(KNOWN[n], abs=5e-4)


@pytest.mark.parametrize("n", KNOWN)
def test_the_margin_of_several_seeds(n: int):
    spread = 1.0 / math.sqrt(n / (n - 1))  # so that the sample standard deviation is 1
    samples = {seed: 80.0 + (spread if seed % 2 else -spread) for seed in range(n)}
    if n % 2:  # the middle one at the mean, the others as far as the standard deviation needs
        samples = {s: 80.0 + (1 if s % 2 else -1) * (s < n - 1) for s in range(n)}
    v = value(samples, n)
    margin = KNOWN[n] * v.std * math.sqrt(1 / n + 1 / 3) + ROUNDING
    assert v.std == pytest.approx(1.0)
    assert value(samples, n, paper=80.0 + margin - 0.002).within
    assert not value(samples, n, paper=80.0 + margin + 0.002).within


def test_three_seeds():
    """With s = 1, a difference of 4.303 * sqrt(2 / 3) = 3.51 is within, and not a bit more."""
    samples = {1: 79.0, 2: 80.0, 3: 81.0}
    assert value(samples, 3, paper=83.51).within
    assert not value(samples, 3, paper=83.53).within
    assert value(samples, 3, paper=76.49).within
    assert not value(samples, 3, paper=76.47).within
