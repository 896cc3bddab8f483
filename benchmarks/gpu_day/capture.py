"""A step that no CUDA graph can record, and the runs after it in the same process.

A loss that the host reads ends the recording. Training must go on with plain steps and the same
numbers, and leave nothing behind: the next run's steps must be recorded as if nothing had been.
On a CPU nothing is recorded; what is compared must then be equal to the bit.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import train
from benchmarks.gpu_day.part import Result, accuracies, difference, digits_run, learned, run_part
from dassl.engine import TRAINER_REGISTRY
from trainers.clip_trainer import frozen_clip
from trainers.coop import CoOp


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True, capturable_step=True)
class WaitingCoOp(CoOp):
    """Says that its step can be recorded, and reads its loss back all the same."""

    def compute_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        loss = super().compute_loss(logits, label)
        loss.item()
        return loss


class Warnings(logging.Handler):
    """Collects what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


RUNS = {  # in this order, in one process: trainer, whether to use graphs
    "plain": ("CoOp", False),
    "failing": ("WaitingCoOp", True),
    "after": ("CoOp", True),
}


def measure(device: torch.device) -> Iterator[Result]:
    for precision in ("fp32", "fp16", "amp") if device.type == "cuda" else ("fp32",):
        with tempfile.TemporaryDirectory() as folder:
            yield three_runs(Path(folder), precision, device)


def three_runs(folder: Path, precision: str, device: torch.device) -> Result:
    """Trains three times; the failing run and the one after it are compared with the plain one."""
    result: Result = {"key": f"capture {precision}"}
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    for name, (trainer, graphs) in RUNS.items():
        options = {"MODEL.CUDA_GRAPH": graphs, "TRAINER.COOP.PREC": precision}
        options |= {"OPTIM.MAX_EPOCH": 5, "USE_CUDA": device.type == "cuda"}
        opts = [str(x) for pair in options.items() for x in pair]
        with contextlib.redirect_stdout(io.StringIO()):  # not `quiet`, which drops warnings
            train.main(digits_run(folder / "data", folder / name, trainer, "CoOp/tiny", *opts))
        result[f"{name}_warnings"] = sum("CUDA graph" in text for text in warnings.texts)
        warnings.texts.clear()
        result[f"{name}_accuracy"] = accuracies(folder / name)[-1]
        if device.type == "cuda":
            on_default = torch.cuda.current_stream() == torch.cuda.default_stream()
            result[f"{name}_leaves_default_stream"] = int(on_default)
    logging.getLogger().removeHandler(warnings)
    plain = learned(folder / "plain")
    for name in ("failing", "after"):
        result[f"{name}_difference"] = difference(learned(folder / name), plain)
    return result


if __name__ == "__main__":
    run_part(measure)
