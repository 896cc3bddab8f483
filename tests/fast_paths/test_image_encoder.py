"""The frozen image encoder against CLIP's own: float64 within 1e-12, float32 within 2e-5."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dassl.utils import ConfigError
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


def plain_local(visual: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) → (B, places, E), by CLIP's own modules."""
    if hasattr(visual, "class_embedding"):
        x = visual.conv1(image).flatten(2).transpose(1, 2)  # (B, patches, D)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        x = visual.ln_pre(x + visual.positional_embedding).transpose(0, 1)
        x = visual.transformer(x).transpose(0, 1)
        return (visual.ln_post(x) @ visual.proj)[:, 1:]
    maps = []  # what enters the pooling
    hook = visual.attnpool.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
    visual(image)
    hook.remove()
    pool, x = visual.attnpool, maps[0].flatten(2).permute(2, 0, 1)  # (HW, B, D)
    x = torch.cat([x.mean(dim=0, keepdim=True), x]) + pool.positional_embedding[:, None]
    q, k, v = (
        getattr(pool, f"{part}_proj")(x).unflatten(-1, (pool.num_heads, -1)).permute(1, 2, 0, 3)
        for part in "qkv"
    )  # (B, H, N, D/H)
    weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1)
    return pool.c_proj((weights @ v).transpose(1, 2).flatten(2))[:, 1:]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("batch", [1, 7, 17])
@pytest.mark.parametrize("name", ["vit_a", "vit_b", "rn_a"])
def test_local_features(name, batch, dtype):
    visual = visual_in(name, dtype)
    batch_of_images = images(batch, image_size(name), batch).to(dtype)
    with torch.no_grad():
        expected = plain_local(visual, batch_of_images)
    encoder = ImageEncoder(visual)
    features = encoder.local(batch_of_images)
    assert not features.requires_grad and encoder.images == batch
    assert_close(features, expected, TOLERANCE[dtype])


def test_other_encoders_have_no_local_features():
    with pytest.raises(ConfigError, match="Flatten has no local features"):
        ImageEncoder(nn.Flatten()).local(images(1, 8, 0))


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
