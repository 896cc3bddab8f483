"""Every choice on a tiny image, and the messages for wrong settings."""

from __future__ import annotations

import logging
import pickle
import random

import pytest
import torch
from PIL import Image

from dassl.data.transforms import AVAI_CHOICES, INTERPOLATION_MODES, build_transform
from dassl.data.transforms.autoaugment import OPERATIONS, CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from dassl.data.transforms.randaugment import (
    FIXMATCH_OPERATIONS,
    RANDAUGMENT2_OPERATIONS,
    RANDAUGMENT_OPERATIONS,
)
from dassl.data.transforms.transforms import (
    IMAGE_STEPS,
    TENSOR_STEPS,
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    Random2DTranslation,
)
from tests.parity.helpers_transforms import image, input_cfg, seed_all

SIZE = (10, 12)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("choice", AVAI_CHOICES)
def test_each_choice_runs_and_can_be_sent_to_a_worker(choice, is_train):
    cfg = input_cfg(SIZE=SIZE, TRANSFORMS=(choice,), GB_K=3, CUTOUT_LEN=4)
    transform = pickle.loads(pickle.dumps(build_transform(cfg, is_train)))
    for seed in range(10):
        seed_all(seed)
        result = transform(image(14, 16, 0))
        assert result.shape == (3, *SIZE)
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()


def test_every_choice_has_a_step():
    assert {*IMAGE_STEPS, *TENSOR_STEPS, "center_crop"} == set(AVAI_CHOICES)


@pytest.mark.parametrize("policy", [ImageNetPolicy, CIFAR10Policy, SVHNPolicy])
def test_autoaugment_tables(policy):
    """25 sub-policies of two known operations: torchvision's tables keep the form we rely on."""
    table = policy().policies
    assert len(table) == 25
    for pair in table:
        assert len(pair) == 2
        for name, probability, level in pair:
            assert name in OPERATIONS
            assert 0 <= probability <= 1
            assert level is None or 0 <= level <= 9


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_autoaugment_operation(name):
    apply, lowest, highest = OPERATIONS[name]
    img = image(14, 16, 0)
    seed_all(1)
    for magnitude in (lowest, (lowest + highest) / 2, highest):
        assert apply(img, magnitude).size == img.size
    if lowest != highest:
        assert apply(img, lowest).tobytes() == img.tobytes()  # level 0 is the identity
        assert apply(img, highest).tobytes() != img.tobytes()


@pytest.mark.parametrize(
    "operations", [RANDAUGMENT_OPERATIONS, RANDAUGMENT2_OPERATIONS, FIXMATCH_OPERATIONS]
)
def test_each_randaugment_operation(operations):
    img = image(14, 16, 0)
    before = img.tobytes()
    seed_all(1)
    for operation in operations:
        for strength in (0.0, 1 / 3, 0.5, 1.0):
            assert operation(img, strength).size == img.size
    assert img.tobytes() == before  # nothing works in place


def test_tensor_transforms():
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.1
    seed_all(1)
    holes = (Cutout(n_holes=1, length=4)(x) == 0).sum()
    assert 3 * 4 <= holes <= 3 * 16
    assert (x > 0).all()
    assert torch.equal(GaussianNoise(p=-1.0)(x), x)
    assert not torch.equal(GaussianNoise(p=1.0)(x), x)
    normalized = InstanceNormalization()(x)
    torch.testing.assert_close(normalized.mean((1, 2)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(normalized.std((1, 2)), torch.ones(3))


@pytest.mark.parametrize("drawn", [0.5, 0.5 + 1e-9])
def test_translation_and_noise_have_an_even_chance(monkeypatch, drawn):
    monkeypatch.setattr(random, "uniform", lambda low, high: drawn if high == 1 else low)
    x = torch.zeros(3, 4, 4)
    assert torch.equal(GaussianNoise()(x), x) is (drawn > 0.5)
    img = image(20, 20, 0)
    cropped = img.resize((18, 18), Image.Resampling.BILINEAR).crop((0, 0, 16, 16))
    expected = cropped if drawn <= 0.5 else img.resize((16, 16), Image.Resampling.BILINEAR)
    assert Random2DTranslation(16, 16)(img).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("choice", "key"), [("gaussian_blur", "GB_P"), ("randomgrayscale", "RGS_P")]
)
def test_probabilities_come_from_the_configuration(choice, key):
    for p in (0.125, 0.75):
        steps = build_transform(input_cfg(TRANSFORMS=(choice,), **{key: p})).transforms
        assert [step.p for step in steps if hasattr(step, "p")] == [p]


def test_translation_crops_the_enlarged_image():
    seed_all(1)
    assert Random2DTranslation(16, 24, p=1.0)(image(20, 20, 0)).size == (24, 16)


def test_interpolation_modes():
    assert sorted(INTERPOLATION_MODES) == ["bicubic", "bilinear", "nearest"]


def test_unknown_choices_are_reported_together():
    cfg = input_cfg(TRANSFORMS=("random_flp", "normalize", "centre_crop"))
    with pytest.raises(ValueError) as error:
        build_transform(cfg)
    first, second = str(error.value).splitlines()
    assert "INPUT.TRANSFORMS" in first
    assert "'random_flp'" in first
    assert ", ".join(AVAI_CHOICES) in first
    assert first.endswith("Did you mean 'random_flip'?")
    assert second.endswith("Did you mean 'center_crop'?")


def test_wrong_settings_name_their_key():
    with pytest.raises(ValueError, match=r"INPUT\.INTERPOLATION is 'bicubc'.*mean 'bicubic'"):
        build_transform(input_cfg(INTERPOLATION="bicubc"))
    with pytest.raises(ValueError, match=r"INPUT\.SIZE"):
        build_transform(input_cfg(SIZE=(224,)))
    with pytest.raises(ValueError, match=r"INPUT\.RANDAUGMENT_M is 31; expected 0 to 30"):
        build_transform(input_cfg(TRANSFORMS=("randaugment",), RANDAUGMENT_M=31))


def test_center_crop_in_training_is_announced_as_without_effect(caplog):
    with caplog.at_level(logging.WARNING):
        build_transform(input_cfg(TRANSFORMS=("center_crop",)))
    assert "center_crop" in caplog.text
