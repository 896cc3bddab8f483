"""MODEL.IMAGE_PRECISION bf16: the image encoder's products in bfloat16, on a CPU."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dassl.utils import ConfigError
from encoders.image import ImageEncoder
from encoders.openai import CLIP
from tests.runs import make_eurosat, run
from trainers import clip_trainer

NO_TEXT = (77, 64, 64, 1, 1)
VISUALS = {
    "ViT": (64, 48, 3, 128, 16, *NO_TEXT),
    "RN": (64, 64, (1, 1, 1, 1), 16, None, *NO_TEXT),
}
BF16 = ("MODEL.IMAGE_PRECISION", "bf16")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def encoders(kind: str) -> tuple[ImageEncoder, ImageEncoder]:
    torch.manual_seed(0)
    visual = CLIP(*VISUALS[kind]).visual.eval().requires_grad_(False)
    return ImageEncoder(visual), ImageEncoder(visual, products=torch.bfloat16)


@pytest.mark.parametrize("kind", VISUALS)
def test_features_are_within_a_percent(kind: str):
    full, half = encoders(kind)
    images = torch.randn(7, 3, full.visual.input_resolution, full.visual.input_resolution)
    expected, found = (F.normalize(encoder(images).float(), dim=-1) for encoder in (full, half))
    off = (found - expected).norm(dim=-1)
    assert 0 < off.max() < 0.02
    assert torch.equal(F.normalize(half(images).float(), dim=-1), found)


def test_gradients_reach_prompts():
    full, half = encoders("ViT")
    images = torch.randn(3, 3, 48, 48)
    prompts = torch.randn(2, 128, requires_grad=True)
    grads = [
        torch.autograd.grad(encoder(images, prompts).float().square().sum(), prompts)[0]
        for encoder in (full, half)
    ]
    assert (grads[1] - grads[0]).norm() < 0.05 * grads[0].norm()


def test_a_run_says_so_and_keeps_its_features_apart(data: Path, tmp_path: Path):
    records = {}
    for name, opts in (("fp32", ()), ("bf16", BF16)):
        store = ("MODEL.FEATURES.FOLDER", str(tmp_path / "store"))
        run(data, tmp_path / name, "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", *store, *opts)
        (line,) = (tmp_path / name / "results.jsonl").read_text().splitlines()
        records[name] = json.loads(line)
    assert records["bf16"]["image_precision"] == "bf16"
    assert "image_precision" not in records["fp32"]
    assert records["bf16"]["images_encoded"] == records["fp32"]["images_encoded"] > 0


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "LinearProbe"])
def test_methods_without_prompts(trainer: str, data: Path, tmp_path: Path):
    found = run(data, tmp_path, *BF16, "DATASET.NUM_SHOTS", "1", trainer=trainer)
    assert found is not None


def test_what_is_refused(data: Path, tmp_path: Path, monkeypatch, caplog):
    with pytest.raises(ConfigError, match=r"MODEL.IMAGE_PRECISION is 'fp8'.*bf16"):
        run(data, tmp_path / "a", "MODEL.IMAGE_PRECISION", "fp8")
    monkeypatch.setattr(clip_trainer, "multiplies_in_bf16", lambda: False)
    with caplog.at_level(logging.WARNING):
        run(data, tmp_path / "b", *BF16, "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1")
    assert "no such products" in caplog.text
    trainer = clip_trainer.CLIPTrainer.__new__(clip_trainer.CLIPTrainer)
    trainer.cfg = clip_trainer.CfgNode({"MODEL": {"IMAGE_PRECISION": "bf16"}})
    trainer.device = torch.device("cuda")
    with pytest.raises(ConfigError, match="is for CPUs"):
        trainer._check_image_precision()
