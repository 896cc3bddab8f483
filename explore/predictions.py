"""What a run predicted for each image, and what follows: calibration, confused classes."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dassl.utils import DataError

BINS = 10


@dataclass(frozen=True)
class Prediction:
    """One image.

    Attributes:
        path: as predictions.csv has it: relative to the root of the data, if it lies below.
        truth: its class.
        top: the likeliest classes with their probabilities, the surest first.
    """

    path: str
    truth: str
    truth_probability: float
    top: tuple[tuple[str, float], ...]

    @property
    def predicted(self) -> str:
        return self.top[0][0]

    @property
    def confidence(self) -> float:
        return self.top[0][1]

    @property
    def right(self) -> bool:
        return self.predicted == self.truth


def read_predictions(path: Path) -> list[Prediction]:
    """Reads predictions.csv.

    Raises:
        DataError: it is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_prediction(row) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} is damaged ({error!r:.80}): test the run again with TEST.ERROR_ANALYSIS True"
        ) from None


def _prediction(row: dict[str, str]) -> Prediction:
    top = []
    while f"class_{len(top) + 1}" in row:
        k = len(top) + 1
        top.append((_plain(row[f"class_{k}"]), float(row[f"probability_{k}"])))
    if not top:
        raise KeyError("class_1")
    return Prediction(
        _plain(row["path"]), _plain(row["truth"]), float(row["truth_probability"]), tuple(top)
    )


def _plain(text: str) -> str:
    """Takes the apostrophe away that keeps spreadsheets from running a cell (`csv_cell`)."""
    return text[1:] if text[:1] == "'" and text[1:].lstrip()[:1] in "=+-@＝＋－＠" else text


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies in one interval: their number, and two means, from 0 to 1."""

    count: int
    confidence: float
    accuracy: float


def bins(predictions: Sequence[Prediction], n: int = BINS) -> list[Bin]:
    """Returns the intervals that hold images, of n equal ones from 0 to 1, (0, 1/n] the first."""
    held: dict[int, list[Prediction]] = {}
    for one in predictions:
        place = math.ceil(one.confidence * n) - 1  # an interval's right end belongs to it
        held.setdefault(min(max(place, 0), n - 1), []).append(one)
    return [
        Bin(
            len(some),
            sum(one.confidence for one in some) / len(some),
            sum(one.right for one in some) / len(some),
        )
        for _, some in sorted(held.items())
    ]


def calibration_error(predictions: Sequence[Prediction], n: int = BINS) -> float:
    """Returns ECE, from 0 to 1: sum over bins of |B| / N · |accuracy(B) - confidence(B)|.

    Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), equation 3.
    """
    return sum(
        one.count / len(predictions) * abs(one.accuracy - one.confidence)
        for one in bins(predictions, n)
    )


def confusions(predictions: Sequence[Prediction]) -> Counter[tuple[str, str]]:
    """Returns (true class, class it was taken for) → number of images, of mistakes."""
    return Counter((one.truth, one.predicted) for one in predictions if not one.right)


def surest_mistakes(predictions: Sequence[Prediction], at_most: int) -> list[Prediction]:
    """Returns mistakes, the highest probability first."""
    wrong = [one for one in predictions if not one.right]
    return sorted(wrong, key=lambda one: -one.confidence)[:at_most]
