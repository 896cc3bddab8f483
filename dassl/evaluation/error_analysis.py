"""Error analysis of one evaluation: what was predicted for each image, and what was confused.

    predictions.csv   a line per image, in the order of the test set
    confusion.csv     counts; a row per true class, a column per predicted class
    confused.png      the most frequent confusions, with images

Shapes: B batch, N images, C classes, K candidates kept of an image: min(TOP, C).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dassl.evaluation.confused_picture import Confusion, Tile, save_picture
from dassl.utils.errors import ConfigError
from dassl.utils.files import PathLike, write_atomically
from dassl.utils.images import read_image
from dassl.utils.logger import get_logger
from dassl.utils.text import csv_cell

logger = get_logger(__name__)

FILES = ("predictions.csv", "confusion.csv", "confused.png")  # in the order they are written
TOP = 5  # candidates kept of each image
# Batches until they are joined: small tensors between the large ones of each batch would keep the
# allocator from using that space again, and the process would grow as if it kept all scores.
JOINED = 32
PAIRS = 8  # confusions in the picture
TILES = 5  # images of each


@dataclass(frozen=True)
class Predictions:
    """What is kept of N images.

    Attributes:
        truth: labels, (N).
        truth_probability: softmax probability of the true class, (N).
        truth_rank: place of the true class among all, from 1; 0: no such class. (N).
        classes: the K likeliest classes, the predicted one first, (N, K).
        probabilities: their softmax probabilities, (N, K).
        scores: the model's outputs for them (logits, for our trainers), (N, K).
    """

    truth: Tensor
    truth_probability: Tensor
    truth_rank: Tensor
    classes: Tensor
    probabilities: Tensor
    scores: Tensor

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor) -> Predictions:
        """Takes scores (B, C) and labels (B). Of equal scores the first counts, as in `max`."""
        scores = scores.detach().float()
        ordered, order = scores.sort(dim=1, descending=True, stable=True)  # (B, C) each
        probabilities = ordered.softmax(dim=1)
        is_truth = order == labels[:, None]  # (B, C), at most once in a row
        rank = (is_truth.int().argmax(dim=1) + 1) * is_truth.any(dim=1)
        truth_probability = (probabilities * is_truth).sum(dim=1)
        top = (kept[:, :TOP].clone() for kept in (order, probabilities, ordered))
        return cls(labels.detach(), truth_probability, rank, *top)

    @classmethod
    def joined(cls, batches: Sequence[Predictions]) -> Predictions:
        """Returns the batches as one, on the CPU."""
        columns = zip(*(vars(batch).values() for batch in batches))
        return cls(*(torch.cat(column).cpu() for column in columns))


def forget(folder: PathLike) -> None:
    """Deletes the analysis of an earlier evaluation."""
    for name in FILES:
        (Path(folder) / name).unlink(missing_ok=True)


class ErrorAnalysis:
    """Collects the predictions of an evaluation; of all scores, an image's K highest are kept.

    Args:
        lab2cname: label → class name; a label without a name is called by its number.
        reader: of the dataset (`image_reader`), path → RGB image; None: `read_image`.
    """

    def __init__(
        self,
        lab2cname: Mapping[int, str] | None = None,
        reader: Callable[[str], Image.Image] | None = None,
    ) -> None:
        self._names = dict(lab2cname or {})
        self._read = reader or read_image
        self._paths: list[str] = []
        self._batches: list[Predictions] = []
        self._n_cls = 0

    def add(self, scores: Tensor, labels: Tensor, batch: Any) -> None:
        """Takes the scores (B, C) and labels (B) of a batch {"impath": B paths, ...}.

        Batches of another kind are taken, too: their images then have no path.

        Raises:
            ConfigError: the model's output is no table of scores.
        """
        if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != len(labels):
            shape = tuple(getattr(scores, "shape", ())) or type(scores).__name__
            raise ConfigError(
                f"TEST.ERROR_ANALYSIS needs one score per image and class, ({len(labels)}, "
                f"classes), but the model's output is {shape}; switch it off for this trainer."
            )
        paths = batch.get("impath") if isinstance(batch, Mapping) else None
        known = paths is not None and len(paths) == len(labels)
        self._paths += map(str, paths) if known else [""] * len(labels)
        self._batches.append(Predictions.of(scores, labels))
        if len(self._batches) == JOINED:
            self._batches = [Predictions.joined(self._batches)]
        self._n_cls = max(self._n_cls, scores.shape[1])

    def save(self, folder: PathLike, title: str, root: PathLike = "") -> None:
        """Writes FILES, each atomically.

        Args:
            folder: where to; created if need be.
            title: of the picture: what was evaluated.
            root: of the datasets; paths below it are written relative to it.
        """
        folder, found = Path(folder), Predictions.joined(self._batches)
        n_names = max(self._n_cls, int(found.truth.max()) + 1)
        names = unique_names([self._names.get(label, str(label)) for label in range(n_names)])
        paths = [_relative(path, root) for path in self._paths]
        _write_csv(folder / FILES[0], prediction_rows(found, paths, names))
        counts = Counter(zip(found.truth.tolist(), found.classes[:, 0].tolist()))
        _write_csv(folder / FILES[1], confusion_rows(counts, names))
        wrong = sum(n for (truth, predicted), n in counts.items() if truth != predicted)
        facts = f"{wrong:,} of {len(paths):,} images wrong ({wrong / len(paths):.1%})"
        pairs = [
            self._confusion(pair, counts, found, names) for pair in most_confused(counts, PAIRS)
        ]
        write_atomically(
            folder / FILES[2],
            lambda part: save_picture(part, pairs, title, facts, TILES, self._read),
        )
        logger.info(f"Error analysis is saved to {', '.join(str(folder / name) for name in FILES)}")

    def _confusion(
        self,
        pair: tuple[int, int],
        counts: Counter[tuple[int, int]],
        found: Predictions,
        names: Sequence[str],
    ) -> Confusion:
        """Picks the images of one pair (true label, predicted label)."""
        truth, predicted = pair
        taken_for, of_class = found.classes[:, 0], found.truth == predicted
        chosen = _surest(found, (found.truth == truth) & (taken_for == predicted))[:TILES]
        recognized = _surest(found, of_class & (taken_for == predicted))
        example = (recognized or _surest(found, of_class))[:1]
        return Confusion(
            names[truth],
            names[predicted],
            counts[pair],
            sum(n for (label, _), n in counts.items() if label == truth),
            [self._wrong(i, found) for i in chosen],
            next((self._example(i, found, names[predicted]) for i in example), None),
        )

    def _wrong(self, i: int, found: Predictions) -> Tile:
        predicted, truth = found.probabilities[i, 0], found.truth_probability[i]
        return Tile(self._paths[i], f"{predicted:.0%}, truth {truth:.0%}")

    def _example(self, i: int, found: Predictions, name: str) -> Tile:
        """Whether the class is recognized or not, its probability is the truth's."""
        return Tile(self._paths[i], f"{found.truth_probability[i]:.0%} {name}")


def _surest(found: Predictions, where: Tensor) -> list[int]:
    """Returns the positions of the images in a mask (N), the highest probability first."""
    positions = where.nonzero().flatten()
    order = found.probabilities[positions, 0].argsort(descending=True, stable=True)
    return positions[order].tolist()


def most_confused(counts: Counter[tuple[int, int]], at_most: int) -> list[tuple[int, int]]:
    """Returns the most frequent pairs of different (true, predicted) labels, ties by label."""
    wrong = [pair for pair in counts if pair[0] != pair[1]]
    return sorted(wrong, key=lambda pair: (-counts[pair], pair))[:at_most]


def unique_names(names: Sequence[str]) -> list[str]:
    """Returns names in label order; classes that share one get their label, "crane (134)"."""
    shared = {name for name, n in Counter(names).items() if n > 1}
    return [f"{name} ({label})" if name in shared else name for label, name in enumerate(names)]


def prediction_rows(
    found: Predictions, paths: Sequence[str], names: Sequence[str]
) -> Iterable[list]:
    """Yields the heading and a row per image of `predictions.csv`."""
    k = found.classes.shape[1]
    head = ["path", "truth", "predicted", "correct", "truth_probability", "truth_rank"]
    for i in range(1, k + 1):
        head += [f"class_{i}", f"probability_{i}", f"score_{i}"]
    yield head
    columns = (column.tolist() for column in vars(found).values())
    for path, truth, p_truth, rank, *top in zip(paths, *columns):
        predicted = top[0][0]
        row = [path, names[truth], names[predicted], int(truth == predicted)]
        row += [_digits(p_truth), rank]
        for label, probability, score in zip(*top):
            row += [names[label], _digits(probability), _digits(score)]
        yield row


def confusion_rows(counts: Counter[tuple[int, int]], names: Sequence[str]) -> Iterable[list]:
    """Yields the heading and a row per true class of `confusion.csv`."""
    yield ["truth", *names]
    for truth, name in enumerate(names):
        yield [name, *(counts[truth, predicted] for predicted in range(len(names)))]


def _digits(number: float) -> str:
    return f"{number:.6g}"  # a float32 holds no more


def _relative(path: str, root: PathLike) -> str:
    root = Path(root).expanduser().absolute()
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


def _write_csv(path: Path, rows: Iterable[list]) -> None:
    def write(part: str) -> None:
        with Path(part).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)

    write_atomically(path, write)
