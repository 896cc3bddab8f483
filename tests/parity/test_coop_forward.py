"""CoOp's prompts, features, logits, loss and gradient against coop_forward.npz."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.golden_recipes import (
    FORWARD,
    GRADIENT,
    assert_close,
    comparable,
    custom_clip,
    golden_clip,
    images,
    load_npz,
    make_cfg,
    sha256,
)
from trainers import coop

ARRAYS, META = load_npz("coop_forward.npz")
LABELS = torch.tensor(META["labels"])


def images_of(model: str) -> torch.Tensor:
    spec = META["images"][model]
    return images(spec["n"], spec["size"], spec["seed"])


def build(name: str) -> coop.CustomCLIP:
    case = META["cases"][name]
    return custom_clip(coop, case, META["class_lists"][case["class_list"]])


@pytest.mark.parametrize("model", META["images"])
def test_image_features(model):
    assert sha256(images_of(model)) == META["images"][model]["sha256"]
    with torch.no_grad():
        features = golden_clip(model).encode_image(images_of(model))
    assert_close(features, ARRAYS[f"{model}/image_features"], FORWARD)


@pytest.mark.parametrize("name", META["cases"])
def test_prompts(name, capsys):
    case = META["cases"][name]
    model = build(name)
    assert comparable(capsys.readouterr().out) == case["printed"]
    learner = model.prompt_learner
    assert learner.tokenized_prompts.tolist() == ARRAYS[case["tokenized"]].tolist()
    assert learner.name_lens == case["name_lens"]
    assert learner.eot.tolist() == case["eot_index"]
    assert learner.n_ctx == case["n_ctx_effective"]
    assert list(learner.ctx.shape) == case["ctx_shape"]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == case["trainable"]
    shapes = {key: list(value.shape) for key, value in learner.state_dict().items()}
    assert shapes == case["state_dict"]
    np.testing.assert_array_equal(learner.ctx.detach().numpy(), ARRAYS[case["ctx"]])
    # Golden rows go one past the longest end token, where our prompts stop.
    padding = learner.token_suffix[:, learner.length - 1 - learner.n_ctx :]
    prompts = torch.cat([learner(), padding], dim=1)  # (C, 77, D)
    expected = ARRAYS[f"{name}/prompt_rowsum"]
    assert_close(prompts.sum(dim=-1)[:, : expected.shape[1]], expected, FORWARD)


@pytest.mark.parametrize("name", META["cases"])
def test_forward_and_backward(name):
    model = build(name)
    learner = model.prompt_learner
    assert_close(
        model.text_encoder(learner(), learner.eot), ARRAYS[f"{name}/text_features"], FORWARD
    )
    logits = model(images_of(META["cases"][name]["model"]))
    assert_close(logits, ARRAYS[f"{name}/logits"], FORWARD)
    loss = F.cross_entropy(logits, LABELS)
    assert_close(loss, ARRAYS[f"{name}/loss"], FORWARD)
    loss.backward()
    assert_close(learner.ctx.grad, ARRAYS[f"{name}/ctx_grad"], GRADIENT)


@pytest.mark.parametrize("name", META["seeded_init"])
def test_seeded_start(name):
    """A seed gives upstream's random context, and leaves the generator where upstream does."""
    _, model, kind = name.split("/")  # n<vectors>_csc<0 or 1>
    n_ctx, csc = kind.removeprefix("n").split("_csc")
    case = META["seeded_init"][name]
    cfg = make_cfg(model, {"TRAINER.COOP.N_CTX": int(n_ctx), "TRAINER.COOP.CSC": csc == "1"})
    clip_model = golden_clip(model)
    torch.manual_seed(case["torch_seed"])
    learner = coop.PromptLearner(cfg, META["class_lists"][case["class_list"]], clip_model)
    np.testing.assert_allclose(learner.ctx.detach().numpy(), ARRAYS[name], rtol=0, atol=1e-8)
    assert float(torch.rand(1)) == case["next_torch_rand"]
