"""Transforms against transforms.npz: pixels, printed lines and random-number consumption."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
import torchvision

from dassl.data.transforms import build_transform
from tests.parity.helpers_transforms import (
    for_installed_pillow,
    image,
    input_cfg,
    load_golden,
    next_numbers,
    seed_all,
)

ARRAYS, META = load_golden()
IMAGES = {
    name: image(spec["height"], spec["width"], spec["k"]) for name, spec in META["images"].items()
}
SAME_TORCH = (META["torch"], META["torchvision"]) == (torch.__version__, torchvision.__version__)
TOLERANCE = 1e-6


def build(size: int, is_train: bool):
    return build_transform(input_cfg(SIZE=(size, size)), is_train)


def check(result: torch.Tensor, name: str) -> None:
    """Compares with the whole golden array or, at 224, its samples, statistics and checksum."""
    result = result.numpy()
    entry = for_installed_pillow(name, META)
    if entry in ARRAYS:
        np.testing.assert_allclose(result, ARRAYS[entry], rtol=0, atol=TOLERANCE)
        return
    sampled = result[:, 7::14, 7::14]
    np.testing.assert_allclose(sampled, ARRAYS[f"{entry}/sub16"], rtol=0, atol=TOLERANCE)
    if entry == name:  # no statistics are stored for the arrays of Pillow 13
        stats = META["stats"][name]
        assert list(result.shape) == stats["shape"]
        for statistic in ("mean", "std", "min", "max"):
            value = getattr(np, statistic)(result.astype(np.float64))
            assert value == pytest.approx(stats[statistic], abs=1e-5)
    if SAME_TORCH:
        sums = META["sha256_float32"] if entry == name else META["pillow13"]["sha256_float32"]
        assert hashlib.sha256(result.tobytes()).hexdigest() == sums[name]


def seeded_cases(prefix: str) -> list[str]:
    """Names like train/32/a/seed1 below a prefix; the sub-sampled ones without their suffix."""
    return sorted(n.removesuffix("/sub16") for n in ARRAYS if n.startswith(prefix))


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_images_are_the_golden_ones(name):
    data = np.asarray(IMAGES[name]).tobytes()
    assert hashlib.sha256(data).hexdigest() == META["images"][name]["sha256_uint8_rgb"]


@pytest.mark.parametrize("name", seeded_cases("test/"))
def test_test_transform(name):
    _, size, img = name.split("/")
    check(build(int(size), is_train=False)(IMAGES[img]), name)


@pytest.mark.parametrize("name", seeded_cases("train/"))
def test_train_transform(name):
    _, size, img, seed = name.split("/")
    transform = build(int(size), is_train=True)
    seed_all(int(seed.removeprefix("seed")))
    check(transform(IMAGES[img]), name)
    params = META["train_random_params"][f"{img}/{seed}"]
    assert next_numbers()["next_torch_rand"] == pytest.approx(params["next_torch_rand"], abs=1e-9)


@pytest.mark.parametrize("size", [32, 224])
def test_train_stream_of_one_seed(size):
    """Six images in a row: every call leaves the generator where upstream leaves it."""
    transform = build(size, is_train=True)
    prefix = f"train_stream/{size}/seed1/"
    names = seeded_cases(prefix)
    assert len(names) == 6
    seed_all(1)
    for name in names:  # sorted is the order of the calls: round, then image
        check(transform(IMAGES[name[-1]]), name)


@pytest.mark.parametrize("key", sorted(META["summary_lines"]))
def test_printed_lines(key, capsys):
    which, size = key.split("_")
    build(int(size), is_train=which == "train")
    assert capsys.readouterr().out.splitlines() == META["summary_lines"][key]


@pytest.mark.parametrize("name", sorted(META["variants"]))
def test_variant(name, capsys):
    spec = META["variants"][name]
    other = {key.removeprefix("INPUT."): value for key, value in spec["other"].items()}
    if "RRCROP_SCALE" in other:
        other["RRCROP_SCALE"] = tuple(other["RRCROP_SCALE"])  # JSON has no tuples
    cfg = input_cfg(
        SIZE=tuple(spec["size"]),
        INTERPOLATION=spec["interpolation"],
        TRANSFORMS=tuple(spec["transforms"]),
        **other,
    )
    transform = build_transform(cfg, spec["is_train"])
    assert capsys.readouterr().out.splitlines() == spec["printed"]
    for case, expected in spec["after"].items():
        img, seed = case.split("/seed")
        seed_all(int(seed))
        result = transform(IMAGES[img])
        assert next_numbers() == pytest.approx(expected, abs=1e-9)
        stored = f"variant/{name}/{case}" if spec["is_train"] else f"variant/{name}/{img}"
        check(result, stored)


def test_choices_replace_the_configured_transforms(capsys):
    spec = META["variants"]["cutout_train"]
    build_transform(input_cfg(), True, choices=spec["transforms"])
    assert capsys.readouterr().out.splitlines() == spec["printed"]


def test_no_transform(capsys):
    assert build_transform(input_cfg(NO_TRANSFORM=True)) is META["no_transform"]["returns"]
    assert capsys.readouterr().out.splitlines() == META["no_transform"]["printed"]
