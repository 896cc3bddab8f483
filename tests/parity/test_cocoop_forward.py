"""CoCoOp's bias, features, logits, loss and gradients against cocoop_forward.npz."""

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
    image_size,
    images,
    load_npz,
    make_cfg,
)
from trainers import cocoop

ARRAYS, META = load_npz("cocoop_forward.npz")
LABELS = torch.tensor(META["labels"])


def build(name: str) -> cocoop.CustomCLIP:
    case = META["cases"][name]
    return custom_clip(cocoop, case, META["class_lists"][case["class_list"]])


@pytest.mark.parametrize("name", META["cases"])
def test_learned_parts(name, capsys):
    case = META["cases"][name]
    model = build(name)
    assert comparable(capsys.readouterr().out) == case["printed"]
    learner = model.prompt_learner
    assert learner.name_lens == case["name_lens"]
    assert learner.n_ctx == case["n_ctx_effective"]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == case["trainable"]
    shapes = {key: list(value.shape) for key, value in learner.state_dict().items()}
    assert shapes == case["state_dict"]
    np.testing.assert_array_equal(learner.ctx.detach().numpy(), ARRAYS[case["ctx"]])
    for key, shape in case["meta_net_shapes"].items():
        parameter = learner.meta_net.get_parameter(key)
        assert list(parameter.shape) == shape
        np.testing.assert_array_equal(parameter.detach().numpy(), ARRAYS[case["meta_net"] + key])


@pytest.mark.parametrize("name", META["cases"])
def test_forward_and_backward(name):
    case = META["cases"][name]
    model = build(name)
    learner = model.prompt_learner
    batch = images(3, image_size(case["model"]), 700)
    image_features = model.encode_image(batch)
    assert_close(image_features, ARRAYS[f"{name}/image_features_normalized"], FORWARD)
    assert_close(learner.meta_net(image_features), ARRAYS[f"{name}/bias"], FORWARD)
    assert (learner.meta_net.linear1(image_features) > 0).int().tolist() == case["relu_active"]
    prompts = learner(image_features)  # (B, C, L, D)
    features = model.text_encoder(prompts.flatten(0, 1), learner.eot.repeat(len(batch)))
    expected = ARRAYS[f"{name}/text_features"]
    assert_close(features.view(expected.shape), expected, FORWARD)
    logits = model(batch)
    assert_close(logits, ARRAYS[f"{name}/logits"], FORWARD)
    loss = F.cross_entropy(logits, LABELS)
    assert_close(loss, ARRAYS[f"{name}/loss"], FORWARD)
    loss.backward()
    for key, parameter in learner.named_parameters():
        assert_close(parameter.grad, ARRAYS[f"{name}/grad/{key}"], GRADIENT, key)


@pytest.mark.parametrize("name", META["seeded_init"])
def test_seeded_start(name):
    """A seed gives upstream's start: first the context, then the two linear layers."""
    case = META["seeded_init"][name]
    model = name.split("/")[1]
    options = {"TRAINER.COCOOP.N_CTX": 4, "TRAINER.COCOOP.CTX_INIT": case["CTX_INIT"]}
    cfg, clip_model = make_cfg(model, options), golden_clip(model)
    torch.manual_seed(case["torch_seed"])
    learner = cocoop.PromptLearner(cfg, META["class_lists"][case["class_list"]], clip_model)
    assert [key for key, _ in learner.named_parameters()] == case["parameter_order"]
    for key, parameter in learner.named_parameters():
        expected = ARRAYS[f"{name}/{key}"]
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-8)
    assert float(torch.rand(1)) == case["next_torch_rand"]
