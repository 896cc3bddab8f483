"""What a run predicted for each image, and what follows: calibration, confused classes.

A test set may have fifty thousand images, and a sweep hundreds of runs: of each image a few numbers
are kept, and what else predictions.csv says is read again for the images that are shown.

Shapes: N images.
"""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


@dataclass(frozen=True, eq=False)
class Predictions:
    """N images, in the order of the test set.

    Attributes:
        names: of classes, in the order in which they are met.
        truth: places in `names`, (N).
        predicted: places in `names`, (N).
        confidence: probability of what was predicted, (N).
        path: the file.
    """

    names: Sequence[str]
    truth: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    path: Path = Path()

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def right(self) -> np.ndarray:
        return self.truth == self.predicted


def read_predictions(path: Path) -> Predictions:
    """Reads predictions.csv.

    Raises:
        DataError: it is damaged.
    """
    places: dict[str, int] = {}
    truth, predicted, confidence = array("i"), array("i"), array("d")
    with _damage_told(path), path.open(encoding="utf-8", newline="") as file:
        rows, (t, p, c) = _rows(file, ("truth", "class_1", "probability_1"))
        for row in rows:
            truth.append(places.setdefault(row[t], len(places)))
            predicted.append(places.setdefault(row[p], len(places)))
            confidence.append(float(row[c]))
    columns = (np.array(column) for column in (truth, predicted, confidence))
    return Predictions([_plain(name) for name in places], *columns, path)


def _rows(file: Iterable[str], wanted: Sequence[str]) -> tuple[Iterator[list[str]], list[int]]:
    """Returns the rows of a file, and the places of columns in them."""
    rows = csv.reader(file)
    head = next(rows, [])
    return rows, [head.index(name) for name in wanted]


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (LookupError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} is damaged ({error!r:.80}): test the run again with TEST.ERROR_ANALYSIS True"
        ) from None


def _plain(text: str) -> str:
    """Takes the apostrophe away that keeps spreadsheets from running a cell (`csv_cell`)."""
    return text[1:] if text[:1] == "'" and text[1:].lstrip()[:1] in "=+-@＝＋－＠" else text


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies in one interval: their number, and two means, from 0 to 1."""

    count: int
    confidence: float
    accuracy: float


def bins(found: Predictions, n: int = BINS) -> list[Bin]:
    """Returns the intervals that hold images, of n equal ones from 0 to 1, (0, 1/n] the first."""
    place = np.ceil(found.confidence * n).astype(int) - 1  # an interval's right end belongs to it
    place = place.clip(0, n - 1)
    counts, sure, right = (
        np.bincount(place, weights, n) for weights in (None, found.confidence, found.right)
    )
    return [
        Bin(int(counts[i]), float(sure[i] / counts[i]), float(right[i] / counts[i]))
        for i in counts.nonzero()[0]
    ]


def calibration_error(found: Predictions, n: int = BINS) -> float:
    """Returns ECE, from 0 to 1: sum over bins of |B| / N · |accuracy(B) - confidence(B)|.

    Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), equation 3.
    """
    return sum(b.count / len(found) * abs(b.accuracy - b.confidence) for b in bins(found, n))


def confusions(found: Predictions) -> Counter[tuple[str, str]]:
    """Returns (true class, class it was taken for) → number of images, of mistakes."""
    wrong = ~found.right
    pairs = Counter(zip(found.truth[wrong].tolist(), found.predicted[wrong].tolist()))
    return Counter({(found.names[t], found.names[p]): n for (t, p), n in pairs.items()})


def surest_mistakes(found: Predictions, at_most: int) -> list[Prediction]:
    """Returns mistakes, the highest probability first.

    Raises:
        DataError: the file is damaged.
    """
    wrong = np.flatnonzero(~found.right)
    chosen = wrong[np.argsort(-found.confidence[wrong], kind="stable")][:at_most].tolist()
    read = dict.fromkeys(chosen)
    with _damage_told(found.path), found.path.open(encoding="utf-8", newline="") as file:
        for i, row in enumerate(csv.DictReader(file)):
            if i in read:
                read[i] = _prediction(row)
    return [one for one in read.values() if one is not None]  # surest first


def _prediction(row: dict[str, str]) -> Prediction:
    top = []
    while f"class_{len(top) + 1}" in row:
        k = len(top) + 1
        top.append((_plain(row[f"class_{k}"]), float(row[f"probability_{k}"])))
    return Prediction(
        _plain(row["path"]), _plain(row["truth"]), float(row["truth_probability"]), tuple(top)
    )
