"""DePT: its head, loss and prediction against the formulas written out, and whole runs."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dassl.engine import TRAINER_REGISTRY, build_trainer, config_problems
from dassl.utils import ConfigError, load_checkpoint
from tests.fast_paths.test_captured_step import NAMES, make_batches
from tests.fast_paths.test_deep_prompts import plain_image, plain_text
from tests.golden_recipes import assert_close, fed_by, golden_clip, make_cfg
from tests.runs import make_eurosat, run
from trainers import prompt_trainer
from trainers.dept import BASES, DePT

DEPTHS = {
    "CoOp": {},
    "IVLP": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2},
    "MaPLe": {"PROMPT_DEPTH": 2},
}
FOLDERS = {"CoOp": "prompt_learner", "IVLP": "VLPromptLearner", "MaPLe": "MultiModalPromptLearner"}


def trainer_of(base: str, batches: list, **options: Any) -> DePT:
    own = {f"TRAINER.{base.upper()}.{key}": value for key, value in DEPTHS[base].items()}
    own |= {f"TRAINER.{base.upper()}.CTX_INIT": "a photo of a", "TRAINER.DEPT.BASE": base}
    torch.manual_seed(0)
    settings = {"OPTIM.NAME": "sgd", "OPTIM.LR": 0.01, "OPTIM.MAX_EPOCH": 3, **own, **options}
    return fed_by(DePT, NAMES, batches)(make_cfg("vit_a", settings))


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def drawn(head: nn.Module) -> dict[str, Tensor]:
    """Gives a head numbers that all differ; returns them, to learn from."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return {k: v.detach().clone().requires_grad_() for k, v in head.named_parameters()}


def plain_features(base: str, model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """By CLIP's own blocks on 77 positions: those of images, and those of classes."""
    clip_model, learner = golden_clip("vit_a"), model.prompt_learner
    prompts, deep, visual = [learner.sequence(c) for c in range(len(NAMES))], None, None
    if base == "IVLP":
        deep = model.prompts["text_encoder"].deep()
        visual = model.prompts["image_encoder"].VPT, model.prompts["image_encoder"].deep()
    if base == "MaPLe":
        deep, visual = learner.deep_context(), learner.visual_prompts()
    w = unit(plain_text(clip_model, learner.ctx, prompts, deep))
    f = plain_image(clip_model.visual, image, *visual) if visual else clip_model.visual(image)
    return unit(f), w


@pytest.mark.parametrize("weight", [0.7, 0.0, 1.0])
@pytest.mark.parametrize("base", BASES)
def test_loss_and_prediction(base: str, weight: float):
    (batch,) = make_batches(4)
    trainer = trainer_of(base, [batch], **{"TRAINER.DEPT.WEIGHT": weight})
    model, image, label = trainer.model, batch["img"], batch["label"]
    head = drawn(model.head)
    f, w = plain_features(base, model, image)

    def log_cat(x: Tensor, side: str) -> Tensor:
        s = head[f"scale.{side}"] * x + head[f"shift.{side}"]
        return (s @ head["classifier.weight"].t() + head["classifier.bias"]).log_softmax(dim=1)

    log_itm = (golden_clip("vit_a").logit_scale.exp() * f @ w.t()).log_softmax(dim=1)
    of_images, of_classes = log_cat(f, "image"), log_cat(w[label], "text")
    cat = -sum(of_images[i, c] + of_classes[i, c] for i, c in enumerate(label)) / 8
    itm = -sum(log_itm[i, c] for i, c in enumerate(label)) / 4
    expected = weight * cat + (1 - weight) * itm
    loss, logits = model(image, label)
    assert_close(loss, expected, 2e-5, "loss")
    p = weight * of_images.exp() + (1 - weight) * log_itm.exp()
    assert_close(logits.softmax(dim=1), p, 1e-4, "prediction in training")
    assert_close(model(image).softmax(dim=1), p, 1e-4, "prediction")
    learned = [*model.learned.parameters(), *model.head.parameters()]
    plain = [*model.learned.parameters(), *head.values()]
    options = {"allow_unused": True, "materialize_grads": True}
    ours = torch.autograd.grad(loss, learned, **options)
    for own, theirs in zip(ours, torch.autograd.grad(expected, plain, **options)):
        assert_close(own, theirs, 2e-4) if theirs.any() else None
        assert theirs.any() or not own.any()


def test_the_head_reaches_the_prompts():
    """With CoOp, where image features are constants, by the class features alone."""
    (batch,) = make_batches(4)
    trainer = trainer_of("CoOp", [batch], **{"TRAINER.DEPT.WEIGHT": 1.0})
    loss, _ = trainer.model(batch["img"], batch["label"])
    (gradient,) = torch.autograd.grad(loss, [trainer.model.prompt_learner.ctx])
    assert gradient.abs().max() > 0


def test_on_other_classes_matching_alone_decides():
    (batch,) = make_batches(3)
    trainer = trainer_of("CoOp", [batch])
    model, state = trainer.model, trainer.model.head.state_dict()
    drawn(model.head)
    f, w = plain_features("CoOp", model, batch["img"])
    matching = golden_clip("vit_a").logit_scale.exp() * f @ w.t()
    other = {**state, "classes": state["classes"].flip(0)}  # as many, in another order
    trainer.load_weights("cat_head", other)
    assert_close(model(batch["img"]), matching, 2e-5)
    trainer.load_weights("cat_head", state)
    assert (model(batch["img"]) - matching).abs().max() > 0.1
    assert torch.equal(model.head.classifier.weight, state["classifier.weight"])


def test_the_head_has_a_rate_of_its_own():
    trainer = trainer_of("CoOp", make_batches(2), **{"TRAINER.DEPT.LR_RATIO": 4.0})
    rates = [optim.param_groups[0]["lr"] for optim in trainer._optims.values()]
    assert rates == [0.01, 0.04]


@pytest.mark.parametrize("base", BASES)
def test_it_is_a_trainer_of_its_base(base: str):
    """Inputs too: features in place of images where the image side is frozen."""
    trainer, method = trainer_of(base, make_batches(2)), TRAINER_REGISTRY.get(base)
    assert isinstance(trainer, method) and isinstance(trainer, DePT)
    assert trainer.checkpoint_folder == FOLDERS[base]
    assert trainer.promise() == method.promise()


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def train(data: Path, out: Path, *opts: str, base: str = "CoOp", **flags: Any) -> float | None:
    few = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "3")
    depths = {f"TRAINER.{base.upper()}.{key}": value for key, value in DEPTHS[base].items()}
    own = [str(x) for pair in depths.items() for x in pair]
    return run(data, out, *few, "TRAINER.DEPT.BASE", base, *own, *opts, trainer="DePT", **flags)


def states(out: Path, base: str) -> list[dict[str, Tensor]]:
    paths = [out / folder / "model.pth.tar-3" for folder in (FOLDERS[base], "cat_head")]
    return [load_checkpoint(str(path))["state_dict"] for path in paths]


@pytest.mark.parametrize("base", BASES)
def test_train_base_test_both(base: str, data: Path, tmp_path: Path, capsys):
    accuracy = train(data, tmp_path / "base", base=base)
    flags = {"eval_only": True, "model_dir": str(tmp_path / "base"), "load_epoch": 3, "base": base}
    again = train(data, tmp_path / "again", **flags)
    assert again == accuracy
    assert "The head knows other classes" not in capsys.readouterr().out
    assert train(data, tmp_path / "new", subsample_classes="new", **flags) is not None
    assert "The head knows other classes" in capsys.readouterr().out
    (record,) = (json.loads(x) for x in (tmp_path / "base/results.jsonl").read_text().splitlines())
    assert record["trainer"] == "DePT"


def test_resume(data: Path, tmp_path: Path):
    train(data, tmp_path, "TRAIN.CHECKPOINT_FREQ", "1")
    whole = states(tmp_path, "CoOp")
    for path in tmp_path.glob("*/model.pth.tar-[23]"):
        path.unlink()
    (tmp_path / "results.jsonl").unlink()
    train(data, tmp_path, resume=str(tmp_path))
    for one_go, resumed in zip(whole, states(tmp_path, "CoOp")):
        assert all(torch.equal(one_go[key], resumed[key]) for key in one_go)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "amp"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_half_precision(device: str, precision: str, data: Path, tmp_path: Path, monkeypatch):
    if device == "cpu":  # is made to compute as a GPU does
        monkeypatch.setattr(prompt_trainer, "resolve_precision", lambda prec, device, key: prec)
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**8)  # so that none is skipped
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    for prec, cuda in (("fp32", False), (precision, device == "cuda")):
        opts = ("TRAINER.COOP.PREC", prec, "USE_CUDA", str(cuda))
        train(data, tmp_path / prec, *opts)
    for exact, half in zip(states(tmp_path / "fp32", "CoOp"), states(tmp_path / precision, "CoOp")):
        for name, value in exact.items():
            assert (half[name] - value).abs().max() <= 5e-2 * value.abs().max(), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"TRAINER.DEPT.BASE": "KgCoOp"}, "TRAINER.DEPT.BASE is 'KgCoOp'; expected one of CoOp"),
        ({"TRAINER.DEPT.WEIGHT": 1.5}, "WEIGHT is 1.5; expected 0 to 1"),
        ({"TRAINER.DEPT.LR_RATIO": -1.0}, "LR_RATIO is -1.0; expected 0 or more"),
        ({"TRAINER.COOP.PREC": "fp8"}, "TRAINER.COOP.PREC is 'fp8'"),
        ({"TRAINER.DEPT.BASE": "IVLP", "TRAINER.IVLP.N_CTX_TEXT": 0}, "N_CTX_TEXT is 0"),
    ],
)
def test_settings(settings: dict[str, Any], message: str):
    cfg = make_cfg("vit_a", settings)
    cfg.defrost()
    cfg.TRAINER.NAME = "DePT"
    assert any(message in problem for problem in config_problems(cfg)), config_problems(cfg)
    if "DEPT" in message:
        with pytest.raises(ConfigError, match="expected one of CoOp"):
            build_trainer(cfg)
