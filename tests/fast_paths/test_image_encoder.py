"""The frozen image encoder against CLIP's own: float64 within 1e-12, float32 within 2e-5."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from encoders.image import ImageEncoder
from encoders.kernels.gemm import BACKENDS
from tests.golden_recipes import assert_close, golden_clip, image_size, images

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def visual_in(name: str, dtype: torch.dtype) -> nn.Module:
    """A golden image encoder; CLIP's norms compute in float32, so double needs torch's."""
    visual = copy.deepcopy(golden_clip(name).visual).to(dtype)
    for module in visual.modules():
        if isinstance(module, nn.LayerNorm) and dtype == torch.float64:
            module.__class__ = nn.LayerNorm
    return visual


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("batch", [1, 3, 7, 8, 9, 16, 17])
@pytest.mark.parametrize("name", ["vit_a", "vit_b", "rn_a"])
def test_features(name, batch, dtype):
    """Groups of eight: less than one, one, two, and one image over."""
    visual = visual_in(name, dtype)
    batch_of_images = images(batch, image_size(name), batch).to(dtype)
    with torch.no_grad():
        expected = visual(batch_of_images)
    features = ImageEncoder(visual)(batch_of_images)
    assert not features.requires_grad
    assert_close(features, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends(backend):
    visual = visual_in("vit_b", torch.float32)
    batch = images(3, image_size("vit_b"), 1)
    with torch.no_grad():
        expected = visual(batch)
    assert_close(ImageEncoder(visual, backend)(batch), expected, 2e-5)


def test_follows_the_weights_and_copies():
    visual = visual_in("vit_a", torch.float32)
    encoder, batch = ImageEncoder(visual), images(2, image_size("vit_a"), 1)
    before = encoder(batch)
    visual.load_state_dict({k: v * 1.1 for k, v in visual.state_dict().items()})
    after = encoder(batch)
    assert not torch.allclose(before, after)
    assert torch.equal(copy.deepcopy(encoder)(batch), after)
    with torch.no_grad():
        assert_close(after, visual(batch), 2e-5)


def test_autocast():
    visual = visual_in("vit_a", torch.float32)
    encoder, batch = ImageEncoder(visual), images(2, image_size("vit_a"), 1)
    exact = encoder(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(batch)
    assert half.dtype == torch.float32  # products are in half precision, sums are not
    assert not torch.equal(half, exact)
    assert_close(half, exact, 0.05)
    assert torch.equal(encoder(batch), exact)
