"""The baselines of CoOp's table 5: whole runs, formulas, and what each leaves alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dassl.utils import CheckpointError, ConfigError, load_checkpoint
from encoders.openai import CLIP
from encoders.tokens import tokenize
from prompts import Predictor
from prompts.classifier import class_weights
from prompts.onnx_file import plain_module
from sweep.plan.request import Request
from tests.golden_recipes import assert_close, golden_clip, images, make_cfg
from tests.porting.conftest import record
from tests.runs import make_eurosat, run
from trainers import fine_tuning

NAMES = ["cat", "snow_leopard", "hand-held computer"]
TEMPLATE = "a blurry photo of a {}."
LEARNED = {  # trainer → folder of its checkpoints, what these hold
    "TransformText": ("text_layer", {"text_layer.weight"}),
    "TransformImage": ("image_layer", {"image_layer.weight"}),
    "BiasText": ("text_bias", {"text_bias.bias"}),
    "FineTuneImage": ("image_encoder", {"image_encoder.proj", "image_encoder.conv1.weight"}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def train(data: Path, out: Path, trainer: str, *opts: str, **flags: Any) -> float | None:
    few = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "3")
    return run(data, out, *few, *opts, trainer=trainer, **flags)


def learned_by(out: Path, trainer: str, epoch: int = 3) -> dict[str, Tensor]:
    path = out / LEARNED[trainer][0] / f"model.pth.tar-{epoch}"
    return load_checkpoint(str(path))["state_dict"]


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", LEARNED)
def test_train_base_test_new(trainer: str, data: Path, tmp_path: Path, capsys):
    train(data, tmp_path / "base", trainer, "TRAIN.CHECKPOINT_FREQ", "1")
    first, last = (learned_by(tmp_path / "base", trainer, epoch) for epoch in (1, 3))
    wanted = LEARNED[trainer][1]
    assert wanted <= first.keys() if trainer == "FineTuneImage" else wanted == first.keys()
    assert all(not torch.equal(first[name], last[name]) for name in wanted)
    assert "First prompts: a centered satellite photo of" in capsys.readouterr().out
    flags = {"eval_only": True, "model_dir": str(tmp_path / "base"), "load_epoch": 3}
    for part in ("base", "new"):
        train(data, tmp_path / f"{part}-again", trainer, subsample_classes=part, **flags)
    trained, again, new = (record(tmp_path / name) for name in ("base", "base-again", "new-again"))
    assert trained["per_class"] == again["per_class"], "the checkpoint holds all that counts"
    assert new["classes"] == "new" and new["total"] > 0


@pytest.mark.parametrize("trainer", LEARNED)
def test_without_a_step_it_is_zero_shot_clip(trainer: str, data: Path, tmp_path: Path):
    frozen = ("OPTIM.LR", "0.0", "OPTIM.WARMUP_EPOCH", "-1")
    train(data, tmp_path / "none", "ZeroshotCLIP")
    train(data, tmp_path / "trained", trainer, *frozen)
    assert record(tmp_path / "trained")["per_class"] == record(tmp_path / "none")["per_class"]


def test_fine_tuning_leaves_the_clip_of_other_runs_alone(data: Path, tmp_path: Path):
    for name in ("before", "between", "after"):
        trainer = "FineTuneImage" if name == "between" else "ZeroshotCLIP"
        train(data, tmp_path / name, trainer, "OPTIM.LR", "0.1")
    assert record(tmp_path / "before")["per_class"] == record(tmp_path / "after")["per_class"]


def test_checkpoints_tell_the_methods_apart(data: Path, tmp_path: Path):
    train(data, tmp_path, "BiasText")
    (tmp_path / "text_bias").rename(tmp_path / "text_layer")
    flags = {"eval_only": True, "model_dir": str(tmp_path), "load_epoch": 3}
    with pytest.raises(CheckpointError, match="another"):
        train(data, tmp_path / "other", "TransformText", **flags)


def test_half_precision_weights_are_not_learned(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"FINETUNE\.PREC is 'fp16'; expected one of fp32, amp"):
        train(data, tmp_path, "FineTuneImage", "TRAINER.FINETUNE.PREC", "fp16")


# --- formulas, on CLIP's own modules --------------------------------------------------------------


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def parts(clip_name: str, kind: type) -> tuple[Any, CLIP, Tensor, Tensor]:
    """Returns a model whose learned numbers have moved, its CLIP, images and w."""
    clip_model = copy.deepcopy(golden_clip(clip_name))
    plain = copy.deepcopy(clip_model)
    model = kind(make_cfg(clip_name), NAMES, clip_model, TEMPLATE).train()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.learned.parameters():
            parameter += 0.02 * parameter.abs().mean().clamp(min=0.1) * torch.randn_like(parameter)
    texts = [TEMPLATE.format(name.replace("_", " ")) for name in NAMES]
    with torch.no_grad():
        w = unit(plain.encode_text(tokenize(texts)))
    size = clip_model.visual.input_resolution
    return model, plain, images(3, size, 5), w


def assert_same_training(model: Any, loss: Tensor, expected: Tensor) -> None:
    learned = dict(model.learned.named_parameters())
    assert_close(loss, expected, 2e-5, "loss")
    own = torch.autograd.grad(loss, learned.values())
    plain = torch.autograd.grad(expected, learned.values())
    for name, one, other in zip(learned, own, plain):
        if other.abs().max() > 1e-6:  # attention's key biases have no gradient but rounding
            assert_close(one, other, 2e-4, name)


@pytest.mark.parametrize("name", ["vit_a", "rn_a"])
@pytest.mark.parametrize("kind", ["WithTextLayer", "WithTextBias", "WithImageLayer"])
def test_what_stands_behind_a_frozen_tower(kind: str, name: str):
    model, plain, image, w = parts(name, getattr(fine_tuning, kind))
    f = unit(plain.encode_image(image)).detach()
    label = torch.tensor([1, 0, 2])
    (learned,) = model.learned.parameters()
    if kind == "WithTextLayer":
        w = unit(w @ learned.t())
    elif kind == "WithTextBias":
        w = unit(w + learned)
    else:
        f = unit(f @ learned.t())
    expected = plain.logit_scale.exp() * f @ w.t()
    assert_same_training(
        model, F.cross_entropy(model(image), label), F.cross_entropy(expected, label)
    )
    raw = plain.encode_image(image).detach()
    assert_close(model.from_features(raw), expected, 2e-5, "from features")


@pytest.mark.parametrize("name", ["vit_a", "rn_a"])
def test_the_whole_image_tower_is_learned(name: str):
    model, plain, image, w = parts(name, fine_tuning.WithImageEncoder)
    tower = model.learned["image_encoder"]
    statistics = {k: v.clone() for k, v in tower.named_buffers()}
    label = torch.tensor([1, 0, 2])
    expected = plain.logit_scale.exp() * unit(tower(image)) @ w.t()
    assert_same_training(
        model, F.cross_entropy(model(image), label), F.cross_entropy(expected, label)
    )
    learned = {id(p) for p in tower.parameters()}
    assert {id(p) for p in model.parameters() if p.requires_grad} == learned
    for key, value in tower.named_buffers():
        assert torch.equal(value, statistics[key]), key


# --- what is made of a run ------------------------------------------------------------------------


@pytest.mark.slow
def test_exports_hold_the_whole_or_are_refused(data: Path, tmp_path: Path):
    batch = images(4, 32, 7)
    for trainer in LEARNED:
        train(data, tmp_path / trainer, trainer, "OPTIM.LR", "0.05")
        predictor = Predictor.load(tmp_path / trainer)
        expected = predictor.trainer.model_inference(batch)
        if trainer == "FineTuneImage":  # CLIP's own features do not do
            with pytest.raises(ConfigError, match=trainer):
                class_weights(predictor)
        else:
            features = predictor.trainer.encode_images(batch)
            assert_close(class_weights(predictor)(features), expected, 1e-5, trainer)
        assert_close(plain_module(predictor)(batch), expected, 1e-5, trainer)


# --- the tables -----------------------------------------------------------------------------------


def test_table_5_plans_the_seven_rows_on_imagenet():
    runs = Request("coop-5").runs()
    assert {run.trainer for run in runs} == {*LEARNED, "ZeroshotCLIP", "LinearProbe", "CoOp"}
    assert {run.dataset for run in runs} == {"imagenet"}
    trained = [run for run in runs if run.trainer in {*LEARNED, "CoOp"}]
    assert {(run.recipe, run.shots, run.epochs) for run in trained} == {("CoOp/rn50_ep50", 16, 50)}


def test_context_lengths_are_the_figure_s():
    runs = Request("coop-length").runs()
    key = "TRAINER.COOP.{}"
    found = {
        (opts[key.format("N_CTX")], opts[key.format("CLASS_TOKEN_POSITION")])
        for opts in (dict(zip(run.opts[::2], run.opts[1::2])) for run in runs)
    }
    assert found == {(m, place) for m in ("4", "8", "16") for place in ("end", "middle")}
    assert len({run.dataset for run in runs}) == 11
    longest = set(Request("coop-fig3").runs()) & set(runs)
    assert len(longest) == 2 * 11 * 3, "M = 16 is figure 3's at 16 shots: nothing is trained twice"


def test_published_numbers_stand_beside(capsys, tmp_path: Path):
    from sweep.cli import main

    for name in ("coop-5", "coop-length"):
        assert main(["table", name, "--output", str(tmp_path), "--format", "csv"]) == 0
    said = capsys.readouterr().out
    for number in ("58.18", "55.87", "62.95", "73.42"):  # zero-shot, probe, CoOp; Average of M=16
        assert number in said
