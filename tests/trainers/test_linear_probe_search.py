"""Linear probe: which end of the interval wins a tie, and which validation images are used."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from dassl.config import get_cfg_default
from dassl.data.datasets import Datum
from trainers import linear_probe

START = 7  # values tried before the interval is halved


def search_with(monkeypatch: pytest.MonkeyPatch, is_right) -> tuple[list[float], float]:
    """Searches with a stand-in for the fit, which is right where `is_right(log10 C)`.

    Returns:
        log10 of every C that was tried, and of the winner, whose coefficients must be returned.
    """
    asked: list[float] = []

    def fit(train: tuple, c: float) -> SimpleNamespace:
        asked.append(float(np.log10(c)))
        right = bool(is_right(asked[-1]))
        coef = np.full((3, 2), c)  # tells which fit it was
        return SimpleNamespace(
            predict=lambda x: np.full(len(x), right), coef_=coef, intercept_=np.zeros(3)
        )

    monkeypatch.setattr(linear_probe, "fit", fit)
    train = np.zeros((3, 2)), np.arange(3)
    val = np.zeros((4, 2)), np.ones(4)
    coefficients, _, c = linear_probe.search(train, val)
    assert (coefficients == c).all(), "the winner's own coefficients"
    return asked, float(np.log10(c))


def test_the_lower_end_wins_a_tie(monkeypatch):
    asked, winner = search_with(monkeypatch, lambda c: True)
    assert winner == pytest.approx(5), "the first start value is 1e6, and the lower end a tenth"
    assert asked[START::2] == pytest.approx([5] * 8), "the lower end stays"
    assert asked[START + 1 :: 2] == pytest.approx([5 + 2 / 2**k for k in range(8)])


def test_the_upper_end_wins_where_it_is_better(monkeypatch):
    asked, winner = search_with(monkeypatch, lambda c: c > 6.99)
    assert winner == pytest.approx(7)
    assert asked[START + 1 :: 2] == pytest.approx([7] * 8), "the upper end stays"
    assert asked[START::2] == pytest.approx([7 - 2 / 2**k for k in range(8)])


def images(*per_class: int) -> list[Datum]:
    return [Datum(f"{c}/{i}.png", c) for c, n in enumerate(per_class) for i in range(n)]


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        (16, {0: 4, 1: 3, 2: 4}),  # not sixteen: at most four validation images per class
        (4, {0: 4, 1: 3, 2: 4}),
        (2, {0: 2, 1: 2, 2: 2}),
        (1, {0: 1, 1: 1, 2: 1}),
        (-1, {0: 4, 1: 3, 2: 4}),  # all training images
    ],
)
def test_validation_sample(shots, expected):
    cfg = get_cfg_default()
    cfg.DATASET.NUM_SHOTS, cfg.SEED = shots, 3
    items = images(20, 3, 5)
    drawn = linear_probe.validation_sample(items, cfg)
    assert Counter(item.label for item in drawn) == expected
    assert len({item.impath for item in drawn}) == len(drawn), "each image once"
    again = linear_probe.validation_sample(items, cfg)
    assert [item.impath for item in again] == [item.impath for item in drawn]
