"""What training steps report, read from a GPU only where the host looks at it.

Reading a number from a GPU waits until the GPU has done all that it was given; meanwhile it is
given nothing new. So numbers stay there until a line of the log, a checkpoint or the end of the
epoch needs them, and then all of them come at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

MOST_WAITING = 500  # reports; more would only take memory

Summary = Mapping[str, float | Tensor]


class Report(NamedTuple):
    """What one step reports; `lr` is the learning rate after it."""

    batch_idx: int
    lr: float
    summary: Summary | None


def must_wait(value: object) -> bool:
    """Whether reading a value would wait for a GPU."""
    return isinstance(value, Tensor) and value.device.type != "cpu"


class StepReports:
    """Reports of steps, in order."""

    def __init__(self) -> None:
        self._waiting: list[Report] = []

    def add(self, batch_idx: int, lr: float, summary: Summary | None) -> None:
        """Keeps a report. What it holds may change afterwards: values are copied.

        Raises:
            RuntimeError: a tensor has more than one element.
        """
        if isinstance(summary, Mapping):
            summary = {name: _kept(value) for name, value in summary.items()}
        self._waiting.append(Report(batch_idx, lr, summary))

    def due(self) -> bool:
        """Whether to read now: no report has to wait, or too many do."""
        return len(self._waiting) >= MOST_WAITING or not self._on_device()

    def take(self) -> list[Report]:
        """Returns all reports as numbers, after one transfer, and forgets them."""
        values = self._on_device()
        if values:
            values = torch.stack([value.to(values[0].device) for value in values]).tolist()
        numbers = iter(values)
        reports, self._waiting = self._waiting, []
        return [_read(report, numbers) for report in reports]

    def _on_device(self) -> list[Tensor]:
        summaries = [r.summary for r in self._waiting if isinstance(r.summary, Mapping)]
        return [v for summary in summaries for v in summary.values() if isinstance(v, Tensor)]


def _kept(value: float | Tensor) -> float | Tensor:
    """A number, or a copy () on the GPU; float64 holds what `item()` of a float would give."""
    if not isinstance(value, Tensor):
        return value
    if not must_wait(value):
        return value.item()
    return value.detach().reshape(()).to(torch.float64, copy=True)


def _read(report: Report, numbers: Iterator[float]) -> Report:
    if not isinstance(report.summary, Mapping):
        return report
    items = report.summary.items()
    return report._replace(
        summary={k: next(numbers) if isinstance(v, Tensor) else v for k, v in items}
    )
