"""The methods beside CoOp and CoCoOp: whole runs, their formulas, their checkpoints."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dassl.engine import config_problems
from dassl.utils import CheckpointError, ConfigError, load_checkpoint, save_checkpoint
from encoders.tokens import tokenize
from tests.fast_paths.test_deep_prompts import plain_image, plain_text
from tests.golden_recipes import assert_close, golden_clip, images, make_cfg
from tests.runs import make_eurosat, run
from trainers import ivlp, kgcoop, lasp, maple, prograd, prompt_trainer, promptsrc, tcp, vpt
from trainers.imagenet_templates import IMAGENET_TEMPLATES
from trainers.prograd import aligned
from trainers.promptsrc import gaussian_weights

NAMES = ["cat", "snow_leopard", "hand-held computer", "Herbaceous Vegetation Land"]
SMALL = {  # depths that the embedded CLIP has
    "KgCoOp": (),
    "ProGrad": (),
    "TCP": ("DEPTH", "1", "HIDDEN", "16"),
    "PLOT": ("N_CTX", "2"),
    "LASP": ("GROUPS", "2"),
    "VPT": ("PROMPT_DEPTH_VISION", "3"),
    "IVLP": ("PROMPT_DEPTH_VISION", "3", "PROMPT_DEPTH_TEXT", "2"),
    "MaPLe": ("PROMPT_DEPTH", "2"),
    "PromptSRC": ("PROMPT_DEPTH_VISION", "3", "PROMPT_DEPTH_TEXT", "2", "GPA_MEAN", "2.0"),
    "ProMetaR": ("PROMPT_DEPTH_VISION", "3", "PROMPT_DEPTH_TEXT", "2"),
}
DEEP_BLOCKS = "transformer.resblocks.{}.VPT_shallow"
CONTEXT = ("ctx", "token_prefix", "token_suffix")
PUBLIC_NAMES = {  # folder, and what the state dict holds
    "KgCoOp": ("prompt_learner", CONTEXT),
    "ProGrad": ("prompt_learner", CONTEXT),
    "PLOT": ("prompt_learner", CONTEXT),
    "LASP": ("prompt_learner", (*CONTEXT, "bias")),
    "TCP": (
        "prompt_learner",
        (*CONTEXT, *(f"meta_net.linear{i}.{name}" for i in (1, 2) for name in ("weight", "bias"))),
    ),
    "VPT": (
        "prompt_learner",
        ("image_encoder.VPT", *(f"image_encoder.{DEEP_BLOCKS}".format(i) for i in (1, 2))),
    ),
    "IVLP": (
        "VLPromptLearner",
        (
            *(f"prompt_learner.{name}" for name in CONTEXT),
            *("image_encoder.VPT", f"text_encoder.{DEEP_BLOCKS}".format(1)),
            *(f"image_encoder.{DEEP_BLOCKS}".format(i) for i in (1, 2)),
        ),
    ),
    "MaPLe": (
        "MultiModalPromptLearner",
        tuple(
            f"prompt_learner.{name}"
            for name in (
                *CONTEXT,
                *("proj.weight", "proj.bias", "compound_prompts_text.0"),
                "compound_prompt_projections.0.weight",
                "compound_prompt_projections.0.bias",
            )
        ),
    ),
}
PUBLIC_NAMES["PromptSRC"] = PUBLIC_NAMES["ProMetaR"] = PUBLIC_NAMES["IVLP"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def options(trainer: str, *more: str) -> list[str]:
    words = "" if trainer == "PLOT" else "a photo of a"  # several equal prompts would stay equal
    pairs = [*SMALL[trainer], "CTX_INIT", words, *more]
    return [f"TRAINER.{trainer.upper()}.{x}" if i % 2 == 0 else x for i, x in enumerate(pairs)]


def train(data: Path, out: Path, trainer: str, *opts: str, **flags: Any) -> float | None:
    few = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "3")
    return run(data, out, *options(trainer), *few, *opts, trainer=trainer, **flags)


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", SMALL)
def test_train_base_test_new(trainer: str, data: Path, tmp_path: Path, capsys):
    folder, names = PUBLIC_NAMES[trainer]
    train(data, tmp_path / "base", trainer)
    state = load_checkpoint(str(tmp_path / f"base/{folder}/model.pth.tar-3"))["state_dict"]
    assert sorted(state) == sorted(names)
    flags = {"eval_only": True, "model_dir": str(tmp_path / "base"), "load_epoch": 3}
    assert train(data, tmp_path / "new", trainer, subsample_classes="new", **flags) is not None
    assert "First prompts: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [name for name in SMALL if "Learner" in PUBLIC_NAMES[name][0]])
def test_public_checkpoints_hold_the_frozen_weights_too(trainer: str, data: Path, tmp_path: Path):
    folder, _ = PUBLIC_NAMES[trainer]
    train(data, tmp_path, trainer)
    path = tmp_path / f"{folder}/model.pth.tar-3"
    state = load_checkpoint(str(path))["state_dict"]
    frozen = {
        "image_encoder.conv1.weight": torch.ones(2),
        "text_encoder.transformer.resblocks.1.ln_1.weight": torch.ones(2),
        "prompt_learner.ZS_image_encoder.proj": torch.ones(2),
        "logit_scale": torch.ones(()),
    }
    flags = {"eval_only": True, "model_dir": str(tmp_path / "public"), "load_epoch": 3}
    public = {"epoch": 3, "optimizer": None, "scheduler": None, "val_result": None}
    place = str(tmp_path / "public" / folder)
    save_checkpoint({**public, "state_dict": {**state, **frozen}}, place)
    train(data, tmp_path / "eval", trainer, **flags)
    deeper = {f"text_encoder.{DEEP_BLOCKS}".format(7): torch.ones(2, 64)}
    save_checkpoint({**public, "state_dict": {**state, **deeper}}, place)
    with pytest.raises(CheckpointError, match=r"resblocks\.7\.VPT_shallow"):
        train(data, tmp_path / "deeper", trainer, **flags)


@pytest.mark.slow
def test_public_kgcoop_checkpoints_hold_a_network_that_nobody_reads(data: Path, tmp_path: Path):
    train(data, tmp_path, "KgCoOp")
    state = load_checkpoint(str(tmp_path / "prompt_learner/model.pth.tar-3"))["state_dict"]
    unread = ("bias_vectors", "meta_net.linear1.weight", "meta_net.linear1.bias")
    public = {"epoch": 3, "optimizer": None, "scheduler": None, "val_result": None}
    public["state_dict"] = {**state, **{name: torch.ones(1, 2) for name in unread}}
    save_checkpoint(public, str(tmp_path / "public/prompt_learner"))
    flags = {"eval_only": True, "model_dir": str(tmp_path / "public"), "load_epoch": 3}
    assert train(data, tmp_path / "eval", "KgCoOp", **flags) is not None
    with pytest.raises(CheckpointError, match="another method wrote it"):
        train(data, tmp_path / "other", "ProGrad", **flags)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["PromptSRC", "TCP", "PLOT", "LASP"])
def test_resumed_prompts_are_those_of_one_go(trainer: str, data: Path, tmp_path: Path):
    """PromptSRC carries the weighted sum of all epochs' prompts with it."""
    folder, _ = PUBLIC_NAMES[trainer]
    name = f"{folder}/model.pth.tar-3"
    train(data, tmp_path / "whole", trainer, "TRAIN.CHECKPOINT_FREQ", "1")
    whole = load_checkpoint(str(tmp_path / "whole" / name))["state_dict"]
    for path in (tmp_path / "whole" / folder).glob("model.pth.tar-[23]"):
        path.unlink()
    (tmp_path / "whole/results.jsonl").unlink()
    train(data, tmp_path / "whole", trainer, resume=str(tmp_path / "whole"))
    resumed = load_checkpoint(str(tmp_path / "whole" / name))["state_dict"]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.fixture(scope="module")
def in_float32(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict]:
    """Returns a function: a method's name → what it learns in float32 on a CPU."""
    return functools.cache(lambda trainer: learned(data, tmp_path_factory.mktemp("f"), trainer))


def learned(data: Path, out: Path, trainer: str, precision: str = "fp32", cuda: bool = False):
    key = f"TRAINER.{trainer.upper()}.PREC"
    assert train(data, out, trainer, key, precision, "USE_CUDA", str(cuda)) is not None
    return load_checkpoint(str(out / PUBLIC_NAMES[trainer][0] / "model.pth.tar-3"))["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", SMALL)
@pytest.mark.parametrize(
    ("device", "precision"),
    [
        *(("cpu", precision) for precision in ("fp16", "amp")),
        *(pytest.param("cuda", p, marks=pytest.mark.gpu) for p in ("fp32", "fp16", "amp")),
    ],
)
def test_half_precision_follows_float32(
    device: str, trainer: str, precision: str, data: Path, in_float32, tmp_path: Path, monkeypatch
):
    expected = in_float32(trainer)
    if device == "cpu":  # is made to compute as a GPU does
        monkeypatch.setattr(prompt_trainer, "resolve_precision", lambda prec, device, key: prec)
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**8)  # so that none is skipped
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    found = learned(data, tmp_path, trainer, precision, device == "cuda")
    tolerance = 1e-3 if precision == "fp32" else 5e-2
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < tolerance * value.abs().max(), name


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ProGrad", "TCP", "PLOT", "MaPLe", "ProMetaR"])
def test_prompts_that_go_through_in_chunks(trainer: str, data: Path, tmp_path: Path):
    """ProGrad goes back through the tower twice, deep prompts enter each chunk, and ProMetaR asks
    for gradients of gradients."""
    learned = []
    for chunk in ("0", "12"):
        out = tmp_path / chunk
        train(data, out, trainer, "MODEL.TEXT_CHUNK", chunk)
        path = out / PUBLIC_NAMES[trainer][0] / "model.pth.tar-3"
        learned.append(load_checkpoint(str(path))["state_dict"])
    for name, value in learned[0].items():
        assert_close(learned[1][name], value, 1e-4, name)


# --- formulas, each against CLIP's own blocks on 77 positions -------------------------------------


def model_of(module: Any, node: str, *args: Any, **settings: Any) -> Any:
    pairs = {"CTX_INIT": "a photo of a", **settings}
    opts = {f"TRAINER.{node}.{key}": value for key, value in pairs.items()}
    torch.manual_seed(0)
    return module.CustomCLIP(make_cfg("vit_a", opts), NAMES, golden_clip("vit_a"), *args)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def plain_classes(model: Any, deep: Tensor | None) -> Tensor:
    learner = model.prompt_learner
    prompts = [learner.sequence(c) for c in range(len(NAMES))]
    return unit(plain_text(golden_clip("vit_a"), learner.ctx, prompts, deep))


def image_batch() -> tuple[Tensor, Tensor]:
    return images(3, 32, 5), torch.tensor([1, 0, 3])


def assert_same_training(model: Any, loss: Tensor, expected: Tensor) -> None:
    """The loss, and the gradients of all that is learned."""
    assert_close(loss, expected, 2e-5, "loss")
    learned = dict(model.learned.named_parameters())
    for name, own, plain in zip(
        learned,
        torch.autograd.grad(loss, learned.values()),
        torch.autograd.grad(expected, learned.values()),
    ):
        assert_close(own, plain, 1e-4, name)


def test_maple_couples_the_visual_prompts_to_the_words():
    model = model_of(maple, "MAPLE", PROMPT_DEPTH=2)
    learner, visual = model.prompt_learner, golden_clip("vit_a").visual
    assert learner.n_ctx == 2 and learner.sequence(0)[3] > 0, '"of a" stays as it is'
    image, label = image_batch()
    prompts = learner.ctx @ learner.proj.weight.t() + learner.proj.bias
    coupling = learner.compound_prompt_projections[0]
    deep = learner.compound_prompts_text[0]
    visual_deep = (deep @ coupling.weight.t() + coupling.bias)[None]
    f = unit(plain_image(visual, image, prompts, visual_deep))
    expected = model.logit_scale.exp() * f @ plain_classes(model, deep[None]).t()
    loss = F.cross_entropy(model(image), label)
    assert_same_training(model, loss, F.cross_entropy(expected, label))


def test_vpt_leaves_the_classes_alone():
    model = model_of(vpt, "VPT", PROMPT_DEPTH_VISION=2, N_CTX_VISION=3)
    image, label = image_batch()
    visual = model.prompt_learner["image_encoder"]
    tokens = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    w = unit(golden_clip("vit_a").encode_text(tokenize(tokens)))
    f = unit(plain_image(golden_clip("vit_a").visual, image, visual.VPT, visual.deep()))
    loss = F.cross_entropy(model(image), label)
    assert_same_training(model, loss, F.cross_entropy(model.logit_scale.exp() * f @ w.t(), label))


@pytest.mark.parametrize(("vision", "text"), [(0, 1), (1, 1), (2, 2)])
def test_ivlp(vision: int, text: int):
    settings = {"PROMPT_DEPTH_VISION": vision, "PROMPT_DEPTH_TEXT": text}
    model = model_of(ivlp, "IVLP", N_CTX_VISION=3, N_CTX_TEXT=2, **settings)
    image, label = image_batch()
    visual = golden_clip("vit_a").visual
    if vision:
        own = model.prompts["image_encoder"]
        f = unit(plain_image(visual, image, own.VPT, own.deep()))
    else:
        f = unit(visual(image))
    w = plain_classes(model, model.prompts["text_encoder"].deep())
    loss = F.cross_entropy(model(image), label)
    assert_same_training(model, loss, F.cross_entropy(model.logit_scale.exp() * f @ w.t(), label))


def test_promptsrc_s_three_terms():
    settings = {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2}
    model = model_of(
        promptsrc, "PROMPTSRC", TEXT_LOSS_WEIGHT=25.0, IMAGE_LOSS_WEIGHT=10.0, **settings
    )
    image, label = image_batch()
    clip_model, own = golden_clip("vit_a"), model.prompts["image_encoder"]
    with torch.no_grad():
        g = torch.zeros(len(NAMES), 64)
        for template in IMAGENET_TEMPLATES[:60]:
            texts = [template.format(name.replace("_", " ")) for name in NAMES]
            g += clip_model.encode_text(tokenize(texts))
        g, f = unit(g), unit(clip_model.visual(image))
    scale = clip_model.logit_scale.exp()
    g_p = plain_classes(model, model.prompts["text_encoder"].deep())
    f_p = unit(plain_image(clip_model.visual, image, own.VPT, own.deep()))
    logits = scale * f_p @ g_p.t()
    q_p, q = logits.softmax(dim=1), (scale * f @ g.t()).softmax(dim=1)
    expected = -q_p[range(3), label].log().mean()
    expected = expected + 25 * (g_p - g).abs().mean() + 10 * (f_p - f).abs().mean()
    expected = expected + (q * (q / q_p).log()).sum() / logits.numel()
    loss, _ = model(image, label)
    assert_same_training(model, loss, expected)


def test_kgcoop_s_guidance():
    model = model_of(kgcoop, "KGCOOP", "art of {}.", W=8.0)
    image, label = image_batch()
    clip_model = golden_clip("vit_a")
    texts = [f"art of {name.replace('_', ' ')}." for name in NAMES]
    w_clip = unit(clip_model.encode_text(tokenize(texts))).detach()
    w, f = plain_classes(model, None), unit(clip_model.visual(image))
    distance = ((w - w_clip) ** 2).sum(dim=1).mean() / 2
    logits = clip_model.logit_scale.exp() * f @ w.t()
    loss, _ = model(image, label)
    assert_same_training(model, loss, F.cross_entropy(logits, label) + 8 * distance)


def test_tcp_s_class_aware_prompts():
    model = model_of(tcp, "TCP", "art of {}.", DEPTH=1, HIDDEN=5, W=3.0)
    image, label = image_batch()
    clip_model, learner = golden_clip("vit_a"), model.prompt_learner
    texts = [f"art of {name.replace('_', ' ')}." for name in NAMES]
    w_clip = unit(clip_model.encode_text(tokenize(texts))).detach()
    down, up = learner.meta_net.linear1, learner.meta_net.linear2
    rows = []
    for c, name in enumerate(NAMES):
        hidden = down.weight @ w_clip[c] + down.bias
        own = up.weight @ (hidden * torch.sigmoid(1.702 * hidden)) + up.bias
        own = own.view(1, 4, 64)  # in block 2, in place of "a photo of a"
        words = f"a photo of a {name.replace('_', ' ')}."
        tokens = tokenize([words])[0].tolist()
        prompt = [tokens[0], -1, -2, -3, -4, *tokens[5 : tokens.index(max(tokens)) + 1]]
        rows.append(plain_text(clip_model, learner.ctx, [prompt], own))
    w, f = unit(torch.cat(rows)), unit(clip_model.visual(image))
    logits = clip_model.logit_scale.exp() * f @ w.t()
    guidance = (1 - (w * w_clip).sum(dim=1)).mean()
    loss, _ = model(image, label)
    assert_same_training(model, loss, F.cross_entropy(logits, label) + 3 * guidance)


@pytest.mark.parametrize(("groups", "correction"), [(1, False), (2, True), (3, True)])
def test_lasp_s_text_to_text_loss(groups: int, correction: bool):
    templates = ["art of {}.", "a photo of the {}.", "itap of a {}."]
    settings = {"GROUPS": groups, "LASP_PROMPTS": templates, "LASP_LOSS_WEIGHT": 3.0}
    model = model_of(lasp, "LASP", ENABLE_CORRECTION=correction, **settings)
    image, label = image_batch()
    clip_model, learner = golden_clip("vit_a"), model.prompt_learner
    assert learner.ctx.shape == (groups, 4, 64)
    with torch.no_grad():  # apart from each other
        learner.ctx += 0.1 * torch.randn(learner.ctx.shape)
        if correction:
            learner.bias += 0.05 * torch.randn(learner.bias.shape)
    prompts, scale = [learner.sequence(c) for c in range(len(NAMES))], clip_model.logit_scale.exp()
    w = [unit(plain_text(clip_model, ctx, prompts, None)) for ctx in learner.ctx]
    terms = []
    for number, template in enumerate(templates):
        texts = [template.format(name.replace("_", " ")) for name in NAMES]
        hand_written = unit(clip_model.encode_text(tokenize(texts))).detach()
        for i in range(len(NAMES)):
            p = torch.stack([scale * h @ w[number % groups][i] for h in hand_written]).softmax(
                dim=0
            )
            terms.append(-p[i].log())
    f = unit(clip_model.visual(image))
    seen = [unit(g + learner.bias) if correction else g for g in w]
    logits = sum(scale * f @ g.t() for g in seen) / groups
    expected = F.cross_entropy(logits, label) + 3 * sum(terms) / len(terms)
    loss, own = model(image, label)
    assert_close(own, logits, 2e-5, "logits")
    assert_same_training(model, loss, expected)


def test_prograd_s_losses():
    model = model_of(prograd, "PROGRAD", "art of {}.", T=1.5)
    image, label = image_batch()
    clip_model = golden_clip("vit_a")
    scaled_f = clip_model.logit_scale.exp() * unit(clip_model.visual(image))

    def plain_losses() -> tuple[Tensor, Tensor]:
        logits = scaled_f @ plain_classes(model, None).t()
        p = (logits / 1.5).softmax(dim=1)
        q = (scaled_f @ model.hand_written.t() / 1.5).softmax(dim=1)
        return F.cross_entropy(logits, label), 1.5**2 * (q * (q / p).log()).sum(dim=1).mean()

    for i in range(2):
        assert_same_training(model, model(image, label)[i], plain_losses()[i])


def test_prograd_s_projection():
    g_d, g_g = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 3.0]])
    assert torch.equal(aligned(g_d, -g_g, 1.0), g_d), "they agree"
    assert torch.equal(aligned(g_d, g_g, 1.0), torch.tensor([[1.0, 0.0]]))
    assert torch.equal(aligned(g_d, g_g, 0.5), torch.tensor([[1.0, -1.0]]))
    assert torch.equal(aligned(g_d, torch.zeros(1, 2), 1.0), g_d), "nothing general is said"
    draws = torch.Generator().manual_seed(0)
    for _ in range(20):
        g_d, g_g = torch.randn(2, 3, 5, generator=draws)
        g = aligned(g_d, g_g, 1.0)
        assert (g * g_g).sum() > -1e-5
        assert (g * g_d).sum() > -1e-5, "still downhill"


def test_gaussian_weights():
    weights = gaussian_weights(20, 15.0, 1.0)
    assert math.isclose(sum(weights), 1) and max(weights) == weights[14]
    assert math.isclose(weights[13] / weights[14], math.exp(-0.5))
    assert gaussian_weights(3, 1e6, 1.0) == [0, 0, 1], "a mean that is far away"


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "settings", "message"),
    [
        ("MAPLE", {"N_CTX": 5}, "CTX_INIT has 4 words for 5 context vectors"),
        ("MAPLE", {"PROMPT_DEPTH": 0}, "PROMPT_DEPTH is 0; expected 1 to 1000"),
        ("IVLP", {"PROMPT_DEPTH_TEXT": 0}, "PROMPT_DEPTH_TEXT is 0; expected 1 to 1000"),
        ("IVLP", {"N_CTX_VISION": 0}, "N_CTX_VISION is 0; expected 1 to 1000"),
        ("IVLP", {"PROMPT_DEPTH_VISION": -1}, "PROMPT_DEPTH_VISION is -1; expected 0 to 1000"),
        ("VPT", {"N_CTX_VISION": 0}, "N_CTX_VISION is 0; expected 1 to 1000"),
        ("VPT", {"N_CTX_VISION": 10**9}, "N_CTX_VISION is 1000000000; expected 1 to 1000"),
        ("PROMPTSRC", {"GPA_STD": 0.0}, "GPA_STD is 0.0; expected more than 0"),
        ("PROMPTSRC", {"PREC": "fp8"}, "PREC is 'fp8'"),
        ("LASP", {"GROUPS": 0}, "TRAINER.LASP.GROUPS is 0; expected 1 to 7"),
        ("LASP", {"GROUPS": 8}, "TRAINER.LASP.GROUPS is 8; expected 1 to 7"),
        ("LASP", {"LASP_PROMPTS": ["a {}", "a photo"]}, "has 'a photo'; a template has one {}"),
        ("LASP", {"LASP_PROMPTS": ["{} and {}"]}, "has '{} and {}'; a template has one {}"),
        ("LASP", {"LASP_PROMPTS": ["a {0}"]}, "has 'a {0}'; a template has one {}"),
        ("LASP", {"LASP_PROMPTS": []}, "LASP_PROMPTS is empty: name one, such as"),
        ("PLOT", {"N": 0}, "TRAINER.PLOT.N is 0; expected 1 or more"),
        ("PLOT", {"EPS": 0.01}, "TRAINER.PLOT.EPS is 0.01; expected 0.03 or more"),
        ("PLOT", {"CTX_INIT": "a photo"}, "4 prompts that start alike stay alike"),
        ("TCP", {"DEPTH": 0}, "TRAINER.TCP.DEPTH is 0; expected 1 or more"),
        ("TCP", {"HIDDEN": -3}, "TRAINER.TCP.HIDDEN is -3; expected 1 or more"),
    ],
)
def test_settings(node: str, settings: dict[str, Any], message: str):
    cfg = make_cfg("vit_a", {f"TRAINER.{node}.{key}": value for key, value in settings.items()})
    cfg.defrost()
    cfg.TRAINER.NAME = {"MAPLE": "MaPLe", "PROMPTSRC": "PromptSRC"}.get(node, node)
    assert any(message in problem for problem in config_problems(cfg)), config_problems(cfg)


@pytest.mark.parametrize(
    ("module", "node", "key"),
    [
        (maple, "MAPLE", "PROMPT_DEPTH"),
        (ivlp, "IVLP", "PROMPT_DEPTH_VISION"),
        (ivlp, "IVLP", "PROMPT_DEPTH_TEXT"),
        (vpt, "VPT", "PROMPT_DEPTH_VISION"),
    ],
)
def test_deeper_than_the_towers(module: Any, node: str, key: str):
    shallow = {k: 1 for k in ("PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT") if node == "IVLP"}
    with pytest.raises(ConfigError, match=rf"TRAINER.{node}.{key} is 9, but the tower has"):
        model_of(module, node, **{**shallow, key: 9})


def test_tcp_leaves_a_block_to_each_class():
    with pytest.raises(ConfigError, match=r"TCP\.DEPTH is 2, but of .* 2 blocks .* set 1 to 1"):
        model_of(tcp, "TCP", "art of {}.", DEPTH=2)


@pytest.mark.parametrize(
    ("module", "node"),
    [(maple, "MAPLE"), (ivlp, "IVLP"), (vpt, "VPT"), (promptsrc, "PROMPTSRC")],
)
def test_resnets_have_no_patches(module: Any, node: str):
    with pytest.raises(ConfigError, match="choose a ViT"):
        module.CustomCLIP(make_cfg("rn_a"), NAMES, golden_clip("rn_a"))
