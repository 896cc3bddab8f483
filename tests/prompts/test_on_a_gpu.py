"""Every method trained, tested and used on a GPU: its predictions are those of a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from prompts import Predictor
from tests.porting.conftest import record
from tests.prompts.exports import there_and_back
from tests.prompts.runs import METHODS, pictures, train
from tests.prompts.test_methods import LEARN_NOTHING

pytestmark = pytest.mark.slow  # a training a method
TWINS = ("CoOp", "PLOT")  # test_methods.py uses all of them on a CPU


@pytest.mark.parametrize(
    ("device", "method"),
    [
        *(pytest.param("cuda", method, marks=pytest.mark.gpu) for method in METHODS),
        *(("cpu", method) for method in TWINS),
    ],
)
def test_from_training_to_use(device: str, method: str, data: Path, tmp_path: Path):
    """In the precision that the method chooses: half, for most."""
    on = ("USE_CUDA", str(device == "cuda"))
    folder = train(data, tmp_path / "base", method, *on, epoch=2)
    again = train(data, tmp_path / "tested", method, *on, eval_only=True, model_dir=str(folder))
    assert record(folder)["per_class"] == record(again)["per_class"]
    there, here = (Predictor.load(folder, device=name) for name in (device, "cpu"))
    assert (there.trainer.device.type, here.trainer.device.type) == (device, "cpu")
    found, expected = there.logits(pictures(data)), here.logits(pictures(data))
    assert (found - expected).abs().max() < 2e-2 * expected.abs().max()
    if method not in LEARN_NOTHING:
        there_and_back(folder, tmp_path, pictures(data))
