"""Half precision loses no more digits than the public fp16 path does, against float64.

On a GPU in earnest. The CPU twin computes with the same types.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from clip.model import CLIP, convert_weights
from torch import Tensor

from encoders import ImageEncoder, TextEncoder, normalize
from encoders.prompt_tree import PromptTree
from tests.fast_paths.test_image_families import doubled, pictures, visual_of
from tests.fast_paths.test_prefix_sharing import (
    CLASS_LISTS,
    context_for,
    in_precision,
    plain_features,
    sequences_of,
    small_clip,
    weighted_sum,
)

DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def error(ours: Tensor, truth: Tensor) -> float:
    """Relative to the truth's length: a largest difference would be a matter of luck."""
    return ((ours.detach().double().cpu() - truth).norm() / truth.norm()).item()


def half_clip(layers: int) -> CLIP:
    """As OpenAI's files are loaded: all in float16 but norms and embeddings."""
    clip_model = copy.deepcopy(small_clip(torch.float32, 256, layers))
    convert_weights(clip_model)
    return clip_model


def features_and_gradient(encode: Callable[[Tensor], Tensor], context: Tensor) -> list[Tensor]:
    context = context.detach().requires_grad_()
    features = encode(context)
    (gradient,) = torch.autograd.grad(weighted_sum(features.cpu().double()), context)
    return [features, gradient]


@DEVICES
@pytest.mark.parametrize("position", ["end", "middle"])
def test_text(device: str, position: str):
    half = half_clip(layers=6)
    exact = in_precision(copy.deepcopy(half).float(), torch.float64)
    half = half.to(device)
    sequences = sequences_of(CLASS_LISTS["ragged"][:8], 4, position, False)
    context = context_for(sequences, 1, 256, torch.float32)
    truth = features_and_gradient(
        lambda ctx: plain_features(exact, ctx, sequences), context.double()
    )
    public = features_and_gradient(
        lambda ctx: plain_features(half, ctx, sequences), context.half().to(device)
    )
    ours = features_and_gradient(
        lambda ctx: TextEncoder(half)(ctx, PromptTree(sequences)), context.to(device)
    )
    for mine, theirs, exactly in zip(ours, public, truth):
        assert error(mine, exactly) <= error(theirs, exactly)


@DEVICES
@pytest.mark.parametrize("family", ["RN50", "RN101", "ViT-B/32"])
def test_images(device: str, family: str):
    visual = visual_of(family)
    convert_weights(visual)
    image = pictures(visual, 4).half()
    truth = normalize(doubled(copy.deepcopy(visual).float())(image.double()))
    visual, image = visual.to(device), image.to(device)
    ours, public = (normalize(encode(image)) for encode in (ImageEncoder(visual), visual))
    assert error(ours, truth) <= error(public, truth)
