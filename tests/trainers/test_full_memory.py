"""Where memory is full, fewer prompts go through at a time, and the numbers stay."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.text import _TextTower
from tests.fast_paths.test_captured_step import build, make_batches, train
from tests.golden_recipes import TRAINING, assert_close
from trainers.cocoop import CoCoOp
from trainers.coop import CoOp


class Memory:
    """Holds so many rows in the text tower; more at a time are an error, as on a GPU."""

    def __init__(self, patch: pytest.MonkeyPatch, rows: int) -> None:
        self.rows, self.refused = rows, 0
        run = _TextTower.run

        def bounded(tower: _TextTower, context: Tensor, rows: Any, *more: Any) -> Tensor:
            if len(context) * rows.n_rows > self.rows:
                self.refused += 1
                if self.refused % 2:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
                raise RuntimeError(
                    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"
                )
            return run(tower, context, rows, *more)

        patch.setattr(_TextTower, "run", bounded)


@pytest.mark.slow
def test_training_goes_on_with_fewer_prompts_at_a_time(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    expected = train(build(CoCoOp, make_batches(8, 8, 8)))
    memory = Memory(monkeypatch, rows=30)  # of an image there are 34
    got = train(build(CoCoOp, make_batches(8, 8, 8)))
    for ours, plain in zip(got, expected, strict=True):
        assert_close(ours, plain, TRAINING)
    said = [r for r in caplog.records if "half as many tokens" in r.getMessage()]
    assert 0 < memory.refused == len(said) <= 8, "what fits is found once, not in each step"


@pytest.mark.parametrize(
    ("trainer_class", "options"), [(CoOp, {}), (CoCoOp, {"MODEL.TEXT_CHUNK": 100})]
)
def test_what_cannot_shrink_is_an_error(monkeypatch, trainer_class, options):
    trainer = build(trainer_class, make_batches(8), **options)
    trainer.num_batches = 1
    memory = Memory(monkeypatch, rows=1)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.forward_backward(trainer.train_loader_x[0])
    assert memory.refused < 10
