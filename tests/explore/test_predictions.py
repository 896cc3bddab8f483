"""What is computed from predictions.csv: calibration by hand, confusions, names as they were."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dassl.evaluation.error_analysis import ErrorAnalysis
from dassl.utils import DataError
from explore.curves import _by_epoch
from explore.predictions import (
    Prediction,
    bins,
    calibration_error,
    confusions,
    read_predictions,
    surest_mistakes,
)


def guess(confidence: float, right: bool, truth: str = "a") -> Prediction:
    name = truth if right else "other"
    return Prediction("", truth, 0.5, ((name, confidence), ("rest", 1 - confidence)))


def test_calibration_by_hand():
    """Two bins: 0.95 and 0.85 with one right of two each; then |0.5 - 0.95| / 2 + ..."""
    some = [guess(0.95, True), guess(0.95, False), guess(0.85, True), guess(0.85, False)]
    found = bins(some)
    assert [(b.count, b.accuracy) for b in found] == [(2, 0.5), (2, 0.5)]
    assert [b.confidence for b in found] == pytest.approx([0.85, 0.95])
    assert calibration_error(some) == pytest.approx(0.5 * 0.35 + 0.5 * 0.45)


def test_a_run_that_knows_how_sure_it_may_be_has_no_error():
    some = [guess(0.75, k < 75) for k in range(100)]
    assert calibration_error(some) == pytest.approx(0)


@pytest.mark.parametrize(
    ("confidence", "place"), [(0.0, 0), (0.1, 0), (0.1001, 1), (0.5, 4), (0.99, 9), (1.0, 9)]
)
def test_an_interval_s_right_end_belongs_to_it(confidence: float, place: int):
    """Seen from outside: it shares a bin with the middle of its interval, and no other."""
    middle = guess((place + 0.5) / 10, True)
    assert len(bins([guess(confidence, True), middle])) == 1
    other = guess((place + 0.5) / 10 + (0.1 if place < 9 else -0.1), True)
    assert len(bins([guess(confidence, True), other])) == 2


def test_confusions_and_mistakes():
    some = [guess(0.6, False), guess(0.9, False), guess(0.99, True), guess(0.7, False, "b")]
    assert confusions(some) == {("a", "other"): 2, ("b", "other"): 1}
    assert [one.confidence for one in surest_mistakes(some, 2)] == [0.9, 0.7]


NAMES = ['<b>&"', "=1+1", "-3", "'quoted", "a,b", "two words"]


def test_names_come_back_as_they_were(tmp_path: Path):
    analysis = ErrorAnalysis(dict(enumerate(NAMES)))
    analysis.add(torch.eye(6) * 4, torch.arange(6), {"impath": [f"{n}.png" for n in NAMES]})
    analysis.save(tmp_path, "title")
    found = read_predictions(tmp_path / "predictions.csv")
    assert [one.truth for one in found] == NAMES
    assert [one.path for one in found] == [f"{name}.png" for name in NAMES]
    expected = math.exp(4) / (math.exp(4) + 5)
    assert [one.confidence for one in found] == pytest.approx([expected] * 6, rel=1e-4)


@pytest.mark.parametrize(
    "text", ["", "path\n", "path,truth,truth_probability\nx,y,1\n", "\x00", "path,truth\nx,y\n"]
)
def test_a_damaged_file_is_told_or_empty(text: str, tmp_path: Path):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    try:
        assert read_predictions(path) == []
    except DataError as error:
        assert "TEST.ERROR_ANALYSIS True" in str(error)


def test_a_curve_has_a_point_an_epoch_the_mean_of_its_steps():
    assert _by_epoch({0: 1.0, 1: 3.0, 2: 5.0, 3: 7.0}, 2) == [(1, 2.0), (2, 6.0)]
    assert _by_epoch({0: 1.0}, 50) == [(50, 1.0)]
    long = _by_epoch({k: float(k) for k in range(5000)}, 1000)
    assert len(long) == 200 and long[-1] == (1000, 4987.0)
