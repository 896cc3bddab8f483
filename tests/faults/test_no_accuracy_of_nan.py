"""NaN in weights or scores is never an accuracy, whatever the method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.evaluation import build_evaluator
from dassl.utils.errors import NonFiniteScoresError, UserError
from encoders.tiny import load_tiny_state_dict
from tests.runs import make_eurosat, run

FEW = ("DATASET.NUM_SHOTS", "2", "MODEL.FEATURES.STORE_MB", "0")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


METHODS = {
    "ZeroshotCLIP": {"trainer": "ZeroshotCLIP", "recipe": "CoOp/vit_b16"},
    "ZeroshotCLIP2": {"trainer": "ZeroshotCLIP2", "recipe": "CoOp/vit_b16"},
    "LinearProbe": {"trainer": "LinearProbe"},
    "CoOp": {"epoch": 1},
    "CoCoOp": {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1", "epoch": 1},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tower", ["visual.proj", "text_projection", "visual.conv1.weight"])
def test_weights_with_nan(data: Path, tmp_path: Path, method: str, tower: str):
    state = load_tiny_state_dict()
    state[tower].view(-1)[3] = torch.nan
    path = tmp_path / "clip.pt"
    torch.save(state, path)
    if method == "LinearProbe" and tower == "text_projection":
        pytest.skip("the probe has no text side")
    with pytest.raises(UserError, match=rf"NaN.*{tower}|{tower}.*NaN"):
        run(data, tmp_path / "out", *FEW, backbone_path=str(path), **METHODS[method])
    assert not (tmp_path / "out/results.jsonl").exists()


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_become_nan(data: Path, tmp_path: Path, monkeypatch, method: str):
    """From whatever cause: the image is named, and there is no record."""
    from encoders.image import ImageEncoder

    plain = ImageEncoder.__call__

    def broken(self: ImageEncoder, *args: object, **kwargs: object) -> torch.Tensor:
        features = plain(self, *args, **kwargs)
        return torch.cat([features[:-1], features[-1:] * torch.nan])

    monkeypatch.setattr(ImageEncoder, "__call__", broken)
    with pytest.raises(UserError, match=r"NaN.*(jpg|epoch 1 of 1)"):
        run(data, tmp_path / "out", *FEW, **METHODS[method])
    assert not (tmp_path / "out/results.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "counts"),
    [
        ([1.0, torch.nan], False),
        ([torch.nan, torch.nan], False),
        ([torch.inf, 0.0], False),
        ([-torch.inf, -torch.inf], False),
        ([-torch.inf, 0.0], True),  # a class that is ruled out
        ([-3e38, 3e38], True),
    ],
)
def test_which_scores_count(row: list[float], counts: bool):
    evaluator = build_evaluator(get_cfg_default())
    evaluator.process(torch.eye(2), torch.tensor([0, 1]))
    evaluator.process(torch.tensor([[1.0, 0.0], row]), torch.tensor([0, 1]))
    if counts:
        assert evaluator.evaluate()["accuracy"] == 100.0
        return
    with pytest.raises(NonFiniteScoresError, match="1 of 4 images") as error:
        evaluator.evaluate()
    assert error.value.position == 3
