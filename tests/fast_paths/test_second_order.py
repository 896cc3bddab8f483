"""Gradients of gradients in both towers against CLIP's own blocks: float64 1e-12, float32 1e-4."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from encoders.image import ImageEncoder
from encoders.kernels import second_order
from encoders.kernels.frozen_linear import ACTIVATIONS
from encoders.kernels.second_order import twice_differentiable
from encoders.prompt_tree import PromptTree
from encoders.text import TextEncoder
from tests.fast_paths.test_deep_prompts import (
    DTYPES,
    GRADIENTS,
    NAMES,
    plain_image,
    plain_text,
    sequences,
    vectors,
)
from tests.fast_paths.test_image_encoder import visual_in
from tests.fast_paths.test_text_encoder import clip_in, weighted_sum
from tests.golden_recipes import assert_close, image_size, images


@pytest.fixture(autouse=True)
def a_reference_with_second_gradients() -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH):  # CLIP's own blocks: the fused kernels have none
        yield


def second_gradients(features: Tensor, learned: list[Tensor]) -> tuple[Tensor, ...]:
    """Of the squared length of the gradient: what a step through a gradient step needs."""
    loss = weighted_sum(features).square()
    gradients = torch.autograd.grad(loss, learned, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in gradients), learned)


def assert_same_second_gradients(ours: Tensor, plain: Tensor, learned: list[Tensor]) -> None:
    for own, expected in zip(second_gradients(ours, learned), second_gradients(plain, learned)):
        assert_close(own, expected, GRADIENTS[own.dtype])


@DTYPES
@pytest.mark.parametrize("chunk", [0, 1, 12])
@pytest.mark.parametrize("position", ["end", "middle"])
def test_text(dtype, position, chunk):
    """Two groups of context vectors; chunks that are recomputed twice."""
    clip_model = clip_in(dtype)
    prompts = list(sequences(position, 3, NAMES, False))
    context, deep = vectors(1, 2, 3, 64, dtype=dtype), vectors(2, 1, 3, 64, dtype=dtype)
    with twice_differentiable():
        features = TextEncoder(clip_model, chunk)(context, PromptTree(prompts), deep)
    expected = torch.stack([plain_text(clip_model, c, prompts, deep) for c in context])
    assert_same_second_gradients(features, expected, [context, deep])


@DTYPES
@pytest.mark.parametrize("name", ["vit_a", "vit_b"])
def test_images(dtype, name):
    visual, image = visual_in(name, dtype), images(7, image_size(name), 1).to(dtype)
    width = visual.class_embedding.shape[0]
    prompts, deep = vectors(3, 3, width, dtype=dtype), vectors(4, 1, 3, width, dtype=dtype)
    with twice_differentiable():
        features = ImageEncoder(visual)(image, prompts, deep)
    assert_same_second_gradients(
        features, plain_image(visual, image, prompts, deep), [prompts, deep]
    )


def test_outside_they_are_refused():
    """Rather than taken for zero."""
    visual, image = visual_in("vit_a", torch.float32), images(1, image_size("vit_a"), 1)
    prompts = vectors(3, 2, visual.class_embedding.shape[0], dtype=torch.float32)
    with pytest.raises(RuntimeError, match=r"once_differentiable|not implemented"):
        second_gradients(ImageEncoder(visual)(image, prompts), [prompts])


def test_it_ends_with_its_block():
    assert not second_order.is_wanted()
    with twice_differentiable():
        assert second_order.is_wanted()
        with twice_differentiable(False):
            assert not second_order.is_wanted()
        assert second_order.is_wanted()
    with pytest.raises(KeyError), twice_differentiable():
        raise KeyError
    assert not second_order.is_wanted()


@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["rows", "rows whose variance is near eps"])
def test_a_norm(scale):
    x = (scale * torch.randn(2, 3, 5, dtype=torch.float64)).requires_grad_()
    assert_close(second_order.norm(x, 1e-5), F.layer_norm(x, (5,)), 1e-15)
    assert torch.autograd.gradgradcheck(lambda x: second_order.norm(x, 1e-5), x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation(name):
    act = ACTIVATIONS[name]
    u = torch.tensor([-40.0, -3.0, -0.1, 0.0, 0.2, 2.5, 40.0], dtype=torch.float64)
    u.requires_grad_()
    assert_close(second_order.activate(u, act), act.of(u), 0.0)
    assert torch.autograd.gradgradcheck(lambda u: second_order.activate(u, act), u)


def test_attention():
    q, k, v = (torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (5, 6, 6))
    learned = [x.requires_grad_() for x in (q, k, v)]
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    assert_close(second_order.attend(q, k, v), expected, 1e-14)
    assert torch.autograd.gradgradcheck(second_order.attend, learned)
