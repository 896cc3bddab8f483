"""Learned parameters that a file holds as something else than floating-point numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dassl.utils import CheckpointError, load_pretrained_weights
from dassl.utils.checkpoint import check_finite, restore_checkpoint

KINDS = {
    "int64": lambda weight: (weight * 9).long(),
    "bool": lambda weight: weight > 0,
    "complex64": lambda weight: weight.to(torch.complex64),
    "infinite numbers": lambda weight: weight / 0,
    "without plain numbers": lambda weight: weight.to("meta"),
    "fewer numbers, repeated": lambda weight: weight[0, 0].clone().expand(2, 3),
}


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ctx = torch.nn.Parameter(torch.arange(1.0, 7.0).reshape(2, 3))
        self.register_buffer("count", torch.tensor(3))


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_numbers(tmp_path: Path, kind: str):
    content = {"ctx": KINDS[kind](Model().ctx.detach()), "count": torch.tensor(4)}
    torch.save(content, tmp_path / "w.pt")
    for load in (
        lambda: load_pretrained_weights(Model(), str(tmp_path / "w.pt")),
        lambda: restore_checkpoint({"state_dict": content}, "w.pt", Model()),
    ):
        with pytest.raises(CheckpointError, match=rf"w\.pt holds .*{kind}"):
            load()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_point_numbers_of_any_width(dtype: torch.dtype):
    model, content = Model(), {"ctx": torch.ones(2, 3, dtype=dtype), "count": torch.tensor(4)}
    restore_checkpoint({"state_dict": content}, "w.pt", model)
    assert model.ctx.dtype == torch.float32 and bool((model.ctx == 1).all()) and model.count == 4


def test_no_tensor():
    content = {"ctx": Model().ctx.tolist(), "count": torch.tensor(4)}
    with pytest.raises(CheckpointError, match=r"w\.pt holds ctx as a list; expected a tensor"):
        restore_checkpoint({"state_dict": content}, "w.pt", Model())


def test_numbers_that_a_file_does_not_have_take_no_memory():
    """Of a few bytes, what would be 8 GB."""
    many = {"ctx": torch.zeros(1).expand(2 * 10**9, 1)}
    with pytest.raises(CheckpointError, match=r"holds ctx as \(2000000000, 1\) of fewer numbers"):
        check_finite(many, "w.pt", {"ctx": torch.zeros(2)})
