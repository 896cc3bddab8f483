"""What is computed from predictions.csv: calibration by hand, confusions, names as they were."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dassl.evaluation.error_analysis import ErrorAnalysis
from dassl.utils import DataError
from explore.curves import _by_epoch
from explore.predictions import (
    Predictions,
    bins,
    calibration_error,
    confusions,
    read_predictions,
    surest_mistakes,
)

Guess = tuple[float, bool, str]  # its probability, whether it is right, the true class


def held(*guesses: Guess) -> Predictions:
    """Returns what predictions.csv would say of images that are a class, or taken for "other"."""
    names = [*dict.fromkeys(truth for *_, truth in guesses), "other"]
    truth = np.array([names.index(name) for *_, name in guesses])
    right = np.array([right for _, right, _ in guesses])
    predicted = np.where(right, truth, len(names) - 1)
    return Predictions(names, truth, predicted, np.array([p for p, *_ in guesses]))


def guess(confidence: float, right: bool, truth: str = "a") -> Guess:
    return confidence, right, truth


def test_calibration_by_hand():
    """Two bins: 0.95 and 0.85 with one right of two each; then |0.5 - 0.95| / 2 + ..."""
    some = held(guess(0.95, True), guess(0.95, False), guess(0.85, True), guess(0.85, False))
    found = bins(some)
    assert [(b.count, b.accuracy) for b in found] == [(2, 0.5), (2, 0.5)]
    assert [b.confidence for b in found] == pytest.approx([0.85, 0.95])
    assert calibration_error(some) == pytest.approx(0.5 * 0.35 + 0.5 * 0.45)


def test_a_run_that_knows_how_sure_it_may_be_has_no_error():
    some = held(*(guess(0.75, k < 75) for k in range(100)))
    assert calibration_error(some) == pytest.approx(0)


@pytest.mark.parametrize(
    ("confidence", "place"), [(0.0, 0), (0.1, 0), (0.1001, 1), (0.5, 4), (0.99, 9), (1.0, 9)]
)
def test_an_interval_s_right_end_belongs_to_it(confidence: float, place: int):
    """Seen from outside: it shares a bin with the middle of its interval, and no other."""
    middle = guess((place + 0.5) / 10, True)
    assert len(bins(held(guess(confidence, True), middle))) == 1
    other = guess((place + 0.5) / 10 + (0.1 if place < 9 else -0.1), True)
    assert len(bins(held(guess(confidence, True), other))) == 2


def test_confusions():
    some = held(guess(0.6, False), guess(0.9, False), guess(0.99, True), guess(0.7, False, "b"))
    assert confusions(some) == {("a", "other"): 2, ("b", "other"): 1}


NAMES = ['<b>&"', "=1+1", "-3", "'quoted", "a,b", "two words"]


def test_names_come_back_as_they_were(tmp_path: Path):
    """Of images that are taken for the next class; the surest mistakes come first."""
    analysis = ErrorAnalysis(dict(enumerate(NAMES)))
    scores = torch.eye(6).roll(1, dims=1) * torch.arange(1, 7)[:, None]
    analysis.add(scores, torch.arange(6), {"impath": [f"{n}.png" for n in NAMES]})
    analysis.save(tmp_path, "title")
    found = read_predictions(tmp_path / "predictions.csv")
    assert [found.names[i] for i in found.truth] == NAMES
    expected = [math.exp(k) / (math.exp(k) + 5) for k in range(1, 7)]
    assert found.confidence.tolist() == pytest.approx(expected, rel=1e-4)
    mistakes = surest_mistakes(found, 4)
    assert [one.path for one in mistakes] == [f"{name}.png" for name in NAMES[:1:-1]]
    assert [one.truth for one in mistakes] == NAMES[:1:-1]
    assert [one.predicted for one in mistakes] == [NAMES[0], *NAMES[:2:-1]]
    assert [one.top[0][1] for one in mistakes] == pytest.approx(expected[:1:-1], rel=1e-4)


@pytest.mark.parametrize(
    "text", ["", "path\n", "path,truth,truth_probability\nx,y,1\n", "\x00", "path,truth\nx,y\n"]
)
def test_a_damaged_file_is_told(text: str, tmp_path: Path):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"TEST\.ERROR_ANALYSIS True"):
        read_predictions(path)


def test_a_curve_has_a_point_an_epoch_the_mean_of_its_steps():
    assert _by_epoch({0: 1.0, 1: 3.0, 2: 5.0, 3: 7.0}, 2) == [(1, 2.0), (2, 6.0)]
    assert _by_epoch({0: 1.0}, 50) == [(50, 1.0)]
    long = _by_epoch({k: float(k) for k in range(5000)}, 1000)
    assert len(long) == 200 and long[-1] == (1000, 4987.0)
