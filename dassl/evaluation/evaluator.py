"""The interface of evaluators, and the one for classification.

Shapes: B batch, N items seen since the last reset, L labels that occur, C classes.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl.evaluation.build import EVALUATOR_REGISTRY
from dassl.utils.errors import ConfigError, NonFiniteScoresError
from dassl.utils.files import write_atomically
from dassl.utils.logger import get_logger
from dassl.utils.text import spelled

logger = get_logger(__name__)


class EvaluatorBase:
    """Collects outputs batch by batch, then reports. Subclasses fill in the three methods."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        """Forgets everything collected so far."""
        raise NotImplementedError

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Takes one batch: model output and ground truth."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, float]:
        """Prints and returns the results; the first value is the one that selects models."""
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1, in per cent.

    With TEST.PER_CLASS_RESULT also the accuracy of each class that occurs and their mean; with
    TEST.COMPUTE_CMAT also the confusion matrix, in `<OUTPUT_DIR>/cmat.pt`.

    Args:
        cfg: the whole configuration.
        lab2cname: label -> class name, needed for per-class results.
    """

    def __init__(
        self, cfg: CfgNode, lab2cname: Mapping[int, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ConfigError(
                "TEST.PER_CLASS_RESULT is on, but the evaluator got no class names; pass "
                "lab2cname to build_evaluator or switch it off"
            )
        self._lab2cname = lab2cname
        self.reset()

    def reset(self) -> None:
        self._pred: list[Tensor] = []
        self._wrong: list[Tensor] = []  # whether the best score is no finite number
        self._true: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        """What was seen, under the names that evaluators built on the public engine's read."""
        if name in ("_y_true", "_y_pred"):
            batches = self._true if name == "_y_true" else self._pred
            return [label for batch in batches for label in batch.tolist()]
        if name == "_total":
            return len(self._y_true)
        if name == "_correct":
            return sum(map(operator.eq, self._y_true, self._y_pred))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Takes the scores (B, C) and labels (B) of one batch.

        The predictions stay on their device until they are evaluated, so that a batch does not
        wait for the transfer of the one before.
        """
        best, pred = mo.detach().max(dim=1)  # (B); a row with NaN has NaN as its largest
        if gt.shape != pred.shape:
            raise ValueError(
                f"labels of shape {tuple(gt.shape)} do not fit {len(pred)} predictions; expected "
                f"({len(pred)},)"
            )
        self._pred.append(pred)
        self._wrong.append(~torch.isfinite(best))
        self._true.append(gt.detach())

    def evaluate(self) -> OrderedDict[str, float]:
        """Prints and returns the results over all batches since the last reset.

        Returns:
            accuracy, error_rate, macro_f1 and, with TEST.PER_CLASS_RESULT, perclass_accuracy.

        Raises:
            ValueError: there were no batches.
            NonFiniteScoresError: the scores of an item are NaN or infinite.
        """
        pred, true = self._collected()  # (N), (N)
        total, correct = len(true), int((pred == true).sum())
        accuracy = 100.0 * correct / total
        results = OrderedDict(
            accuracy=accuracy,
            error_rate=100.0 - accuracy,
            macro_f1=100.0 * _macro_f1(pred, true),
        )
        logger.info(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {results['accuracy']:.1f}%\n"
            f"* error: {results['error_rate']:.1f}%\n"  # "error" is the name log parsers expect
            f"* macro_f1: {results['macro_f1']:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._print_per_class()
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion_matrix(pred, true)
        return results

    def per_class_counts(self) -> dict[int, tuple[int, int]]:
        """Returns label -> (total, correct), for the labels that occur, in ascending order."""
        pred, true = self._collected()
        labels, index = torch.unique(true, return_inverse=True)  # (L), (N)
        totals = torch.bincount(index, minlength=len(labels))  # (L)
        corrects = torch.bincount(index[pred == true], minlength=len(labels))  # (L)
        counts = zip(labels.tolist(), totals.tolist(), corrects.tolist())
        return {label: (total, correct) for label, total, correct in counts}

    def _collected(self) -> tuple[Tensor, Tensor]:
        """All predictions and labels so far, (N) each, on the CPU."""
        if not sum(len(batch) for batch in self._true):
            raise ValueError(
                "no predictions to evaluate: process() has not seen any item since the last "
                "reset(). Is the data loader empty?"
            )
        wrong = torch.cat(self._wrong).nonzero().flatten().tolist()
        if wrong:
            raise NonFiniteScoresError(
                f"the scores of {len(wrong):,} of {sum(map(len, self._true)):,} images are NaN or "
                "infinite, so there is no accuracy: weights or images are damaged, or numbers "
                f"overflowed. The first is number {wrong[0] + 1:,}.",
                wrong[0],
            )
        return torch.cat(self._pred).cpu(), torch.cat(self._true).cpu()

    def _print_per_class(self) -> float:
        """Prints one line per class; returns the mean of the class accuracies in per cent."""
        logger.info("=> per-class result")
        accuracies = []
        for label, (total, correct) in self.per_class_counts().items():
            accuracies.append(100.0 * correct / total)
            logger.info(
                f"* class: {label} ({spelled(self._lab2cname[label])})\t"
                f"total: {total:,}\tcorrect: {correct:,}\tacc: {accuracies[-1]:.1f}%"
            )
        average = sum(accuracies) / len(accuracies)
        logger.info(f"* average: {average:.1f}%")
        return average

    def _save_confusion_matrix(self, pred: Tensor, true: Tensor) -> None:
        # A tensor, not an array: torch.load(weights_only=True) then reads the file.
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        matrix = _confusion_matrix(pred, true)
        write_atomically(path, lambda part: torch.save(matrix, part))
        logger.info(f"Confusion matrix is saved to {path}")


def _macro_f1(pred: Tensor, true: Tensor) -> float:
    """Mean over the labels that occur in `true` of F1 = 2 TP / (2 TP + FP + FN).

    Labels that are only predicted count as errors of the others but get no term of their own, as
    in the public implementation. The denominator is |true = c| + |pred = c|, never zero here.
    """
    _, index = torch.unique(torch.cat([true, pred]), return_inverse=True)  # (2N)
    index_true, index_pred = index.chunk(2)  # (N), (N)
    n_labels = int(index.max()) + 1
    n_true = torch.bincount(index_true, minlength=n_labels)  # (L)
    n_pred = torch.bincount(index_pred, minlength=n_labels)  # (L)
    hits = torch.bincount(index_true[pred == true], minlength=n_labels)  # (L)
    occurs = n_true > 0
    return (2 * hits[occurs].double() / (n_true + n_pred)[occurs]).mean().item()


def _confusion_matrix(pred: Tensor, true: Tensor) -> Tensor:
    """Entry (i, j): the share of items of label i that were predicted as label j.

    Rows and columns are the labels that occur in `true` or `pred`, in ascending order; the row of
    a label that is only predicted is zero. Shape (L, L), float64.
    """
    labels, index = torch.unique(torch.cat([true, pred]), return_inverse=True)  # (L), (2N)
    index_true, index_pred = index.chunk(2)
    n_labels = len(labels)
    pairs = torch.bincount(index_true * n_labels + index_pred, minlength=n_labels**2)
    counts = pairs.view(n_labels, n_labels).double()  # (L, L)
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
