"""What a checkpoint says of its making, in forms that nobody writes: one sentence, and no hang."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dassl.engine import identity
from dassl.utils import CheckpointError, load_checkpoint

NOW = {
    "trainer": "CoOp",
    "classnames": ["cat", "dog"],
    "weights": {"name": "CLIP tiny", "sha256": "0" * 64},
    "data": {"split": "official"},
    "settings": {"OPTIM.LR": 0.1},
    "torch": "2",
    "device": "cpu",
}
CHECKS = (identity.check_same_run, identity.check_usable)
ODD = [
    *([1], "text", 3, {"a": 1}, torch.ones(3)),
    *({**NOW, "settings": value} for value in ([["OPTIM.LR"]], {"OPTIM.LR": torch.ones(2)}, 3)),
    *({**NOW, "trainer": value} for value in (None, [1])),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("then", ODD, ids=lambda then: f"{then}"[:40])
def test_odd_forms(check, then: Any):
    try:
        check(then, NOW, "model.pth.tar-1")
    except CheckpointError as error:
        assert "model.pth.tar-1" in str(error)


@pytest.mark.parametrize("weights", [[1], "text", 3, {"sha256": "1" * 64}, None])
def test_odd_weights(weights: Any):
    problems = identity.other_weights({**NOW, "weights": weights}, NOW)
    assert bool(problems) == isinstance(weights, dict)


def test_what_fits_is_accepted():
    for check in CHECKS:
        check(NOW, NOW, "model.pth.tar-1")
        check(None, NOW, "model.pth.tar-1")


@pytest.mark.slow
def test_lists_that_hold_each_other(tmp_path: Path):
    """Half a kilobyte that is 2^40 texts for whoever goes through it."""
    nested: Any = ["lol"]
    for _ in range(40):
        nested = [nested, nested]
    endless: list = []
    endless.append(endless)
    for value in (nested, endless, {"a": (nested,)}):
        torch.save({"epoch": 1, "state_dict": {}, identity.KEY: {"trainer": value}}, tmp_path / "x")
        with pytest.raises(CheckpointError, match="its lists hold each other"):
            load_checkpoint(str(tmp_path / "x"))
