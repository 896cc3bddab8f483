"""The frozen image encoders against the clip package's own forward passes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from encoders import ImageEncoder, normalize
from encoders.openai import CLIP
from tests.golden_recipes import FORWARD, assert_close, golden_clip, images

# Every family of OpenAI's backbones, few layers: resolution, vision layers, width, patch.
# Heads are width / 64 (transformers) and width / 2 (ResNets), as there.
FAMILIES = {
    "RN50": (96, (2, 1, 2, 1), 64, None),
    "RN101": (96, (1, 1, 3, 1), 64, None),
    "RN50x4": (96, (1, 2, 1, 1), 80, None),
    "RN50x16": (64, (1, 1, 1, 1), 96, None),
    "ViT-B/32": (96, 2, 768, 32),
    "ViT-B/16": (64, 3, 768, 16),
    "ViT-L/14": (56, 2, 1024, 14),
    "ViT-L/14@336px": (84, 1, 1024, 14),
}
GROUPS = (1, 8, 17)  # batch sizes: alone, a whole group, groups and a rest
HALF = 4e-3  # of the largest value


def visual_of(family: str) -> nn.Module:
    """An image encoder with weights as after training: no norm is the identity."""
    resolution, layers, width, patch = FAMILIES[family]
    torch.manual_seed(len(family))
    visual = CLIP(48, resolution, layers, width, patch, 8, 16, 64, 1, 1).visual.eval()
    with torch.no_grad():
        for name, tensor in visual.state_dict().items():
            if "bn" in name or "ln" in name or "downsample.1" in name:
                if name.endswith("running_var"):
                    tensor.uniform_(0.5, 2)
                elif tensor.is_floating_point():
                    tensor.add_(0.2 * torch.randn_like(tensor))
    for parameter in visual.parameters():
        parameter.requires_grad_(False)
    return visual


def doubled(visual: nn.Module) -> nn.Module:
    """A copy in float64; clip's norms compute in float32 whatever they are given."""
    twin = copy.deepcopy(visual).double()
    for module in twin.modules():
        if isinstance(module, nn.LayerNorm):
            module.__class__ = nn.LayerNorm
    return twin


def pictures(visual: nn.Module, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    size = visual.input_resolution
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n)).to(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", None])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, backend):
    visual = visual_of(family)
    exact = doubled(visual)
    encoder = ImageEncoder(visual, backend)
    for n in GROUPS:
        image = pictures(visual, n)
        assert_close(encoder(image), exact(image.double()), FORWARD, f"batch of {n}")
        assert_close(encoder(image), visual(image), FORWARD, f"batch of {n}")
    assert encoder.images == 2 * sum(GROUPS)


@pytest.mark.parametrize("name", ["vit_a", "vit_b", "rn_a"])
def test_golden_models(name):
    visual = golden_clip(name).visual
    image = images(3, visual.input_resolution, 700)
    with torch.no_grad():
        assert_close(ImageEncoder(visual)(image), visual(image), FORWARD)


@pytest.mark.parametrize("family", ["RN50", "ViT-B/16"])
def test_double_precision(family):
    """In float64 nothing is left of the differences: the formulas are the same."""
    visual = doubled(visual_of(family))
    image = pictures(visual, 2, torch.float64)
    assert_close(ImageEncoder(visual, "torch")(image), visual(image), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["RN50", "ViT-B/16"])
def test_layouts_of_memory(family):
    """Images of any strides, as views, crops and channels-last batches have them."""
    visual = visual_of(family)
    encoder, image = ImageEncoder(visual), pictures(visual, 3)
    expected = visual(image)
    for other in (
        image.to(memory_format=torch.channels_last),
        image.transpose(2, 3).contiguous().transpose(2, 3),
        image.repeat(2, 1, 1, 1)[::2][[0, 2, 1]][[0, 2, 1]],
    ):
        assert_close(encoder(other), visual(other), FORWARD)
    assert_close(encoder(image), expected, FORWARD)


@pytest.mark.parametrize("family", ["RN50", "ViT-B/16"])
def test_changed_weights_are_seen(family):
    visual = visual_of(family)
    encoder, image = ImageEncoder(visual), pictures(visual, 2)
    before = encoder(image)
    with torch.no_grad():
        if family == "RN50":
            visual.layer1[0].bn1.running_mean.add_(0.3)  # a buffer, not a parameter
        else:
            visual.ln_post.bias.add_(0.3)
    assert not torch.allclose(encoder(image), before)
    assert_close(encoder(image), visual(image), FORWARD)


def test_batch_norm_in_training_mode_is_left_alone():
    visual = visual_of("RN50").train()
    twin = copy.deepcopy(visual)
    image = pictures(visual, 4)
    assert torch.equal(ImageEncoder(visual)(image), twin(image))


def test_other_encoders_run_as_they_are():
    visual = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    image = torch.randn(5, 3, 2, 2)
    assert torch.equal(ImageEncoder(visual)(image), visual(image))


@pytest.mark.parametrize("family", ["RN50", "ViT-B/16"])
def test_under_autocast(family):
    """As with amp, but on a CPU and in bfloat16."""
    visual = visual_of(family)
    image = pictures(visual, 3)
    with torch.autocast("cpu", torch.bfloat16):
        got = normalize(ImageEncoder(visual)(image))
    assert_close(got, normalize(visual(image)), 0.03)


ON_GPU = [
    pytest.param("cuda", dtype, name, marks=pytest.mark.gpu)
    for dtype in (torch.float32, torch.float16)
    for name in FAMILIES
]
TWINS = [("cpu", torch.float16, name) for name in ("RN50", "ViT-B/32")]


@pytest.mark.parametrize(("device", "dtype", "family"), [*TWINS, *ON_GPU])
def test_whole_encoders_in_a_precision(device, dtype, family):
    """Norms are converted, too: not as OpenAI's files are loaded, but as `.half()` does it."""
    visual = visual_of(family)
    image = pictures(visual, 17 if device == "cuda" else 3)
    exact = doubled(visual)(image.double())
    got = ImageEncoder(visual.to(device, dtype))(image.to(device, dtype))
    tolerance = HALF if dtype == torch.float16 else 10 * FORWARD
    assert_close(normalize(got).cpu(), normalize(exact), tolerance)
