"""The constants of the augmentations, written out from the papers.

AutoAugment: Cubuk et al., arXiv:1805.09501, appendix: the policies, and the table of operations.
RandAugment: Cubuk et al., arXiv:1909.13719, with the operations of UDA's code (arXiv:1904.12848).
FixMatch: Sohn et al., arXiv:2001.07685, appendix, transformations used in RandAugment.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dassl.data.transforms import autoaugment, randaugment
from dassl.data.transforms.autoaugment import OPERATIONS, CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from dassl.data.transforms.randaugment import RandAugment, RandAugment2, RandAugmentFixMatch
from tests.parity.helpers_transforms import image

# --- AutoAugment ----------------------------------------------------------------------------------

# 25 sub-policies of two operations: name, probability in tenths, level.
IMAGENET = """
Posterize 4 8, Rotate 6 9        | Solarize 6 5, AutoContrast 6 5 | Equalize 8 8, Equalize 6 3
Posterize 6 7, Posterize 6 6     | Equalize 4 7, Solarize 2 4     | Equalize 4 4, Rotate 8 8
Solarize 6 3, Equalize 6 7       | Posterize 8 5, Equalize 10 2   | Rotate 2 3, Solarize 6 8
Equalize 6 8, Posterize 4 6      | Rotate 8 8, Color 4 0          | Rotate 4 9, Equalize 6 2
Equalize 0 7, Equalize 8 8       | Invert 6 4, Equalize 10 8      | Color 6 4, Contrast 10 8
Rotate 8 8, Color 10 2           | Color 8 8, Solarize 8 7        | Sharpness 4 7, Invert 6 8
ShearX 6 5, Equalize 10 9        | Color 4 0, Equalize 6 3        | Equalize 4 7, Solarize 2 4
Solarize 6 5, AutoContrast 6 5   | Invert 6 4, Equalize 10 8      | Color 6 4, Contrast 10 8
Equalize 8 8, Equalize 6 3
"""
CIFAR10 = """
Invert 1 7, Contrast 2 6         | Rotate 7 2, TranslateX 3 9     | Sharpness 8 1, Sharpness 9 3
ShearY 5 8, TranslateY 7 9       | AutoContrast 5 8, Equalize 9 2 | ShearY 2 7, Posterize 3 7
Color 4 3, Brightness 6 7        | Sharpness 3 9, Brightness 7 9  | Equalize 6 5, Equalize 5 1
Contrast 6 7, Sharpness 6 5      | Color 7 7, TranslateX 5 8      | Equalize 3 7, AutoContrast 4 8
TranslateY 4 3, Sharpness 2 6    | Brightness 9 6, Color 2 8      | Solarize 5 2, Invert 0 3
Equalize 2 0, AutoContrast 6 0   | Equalize 2 8, Equalize 6 4     | Color 9 9, Equalize 6 6
AutoContrast 8 4, Solarize 2 8   | Brightness 1 3, Color 7 0      | Solarize 4 5, AutoContrast 9 3
TranslateY 9 9, TranslateY 7 9   | AutoContrast 9 2, Solarize 8 3 | Equalize 8 8, Invert 1 3
TranslateY 7 9, AutoContrast 9 1
"""
SVHN = """
ShearX 9 4, Invert 2 3           | ShearY 9 8, Invert 7 5         | Equalize 6 5, Solarize 6 6
Invert 9 3, Equalize 6 3         | Equalize 6 1, Rotate 9 3       | ShearX 9 4, AutoContrast 8 3
ShearY 9 8, Invert 4 5           | ShearY 9 5, Solarize 2 6       | Invert 9 6, AutoContrast 8 1
Equalize 6 3, Rotate 9 3         | ShearX 9 4, Solarize 3 3       | ShearY 8 8, Invert 7 4
Equalize 9 5, TranslateY 6 6     | Invert 9 4, Equalize 6 7       | Contrast 3 3, Rotate 8 4
Invert 8 5, TranslateY 0 2       | ShearY 7 6, Solarize 4 8       | Invert 6 4, Rotate 8 4
ShearY 3 7, TranslateX 9 3       | ShearX 1 6, Invert 6 5         | Solarize 7 2, TranslateY 6 7
ShearY 8 4, Invert 8 8           | ShearX 7 9, TranslateY 8 3     | ShearY 8 5, AutoContrast 7 3
ShearX 7 2, Invert 1 5
"""
POLICIES = [(ImageNetPolicy, IMAGENET), (CIFAR10Policy, CIFAR10), (SVHNPolicy, SVHN)]
# What level 9 is, beside the identity of level 0. The level of an operation that is not here has
# no meaning. Factors of the enhancing operations run from 0.1 to 1.9: 0.9 on either side of 1.
STRONGEST = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150 / 331,  # pixels of an image of 331
    "TranslateY": 150 / 331,
    "Rotate": 30,
    "Solarize": 0,
    "Posterize": 4,
    "Contrast": 0.9,
    "Color": 0.9,
    "Brightness": 0.9,
    "Sharpness": 0.9,
}
WEAKEST = {"Solarize": 256, "Posterize": 8}  # all others: 0


def parsed(table: str) -> list[list[tuple[str, float, int]]]:
    pairs = [pair for line in table.strip().splitlines() for pair in line.split("|")]
    words = [[operation.split() for operation in pair.split(",")] for pair in pairs]
    return [[(name, int(p) / 10, int(level)) for name, p, level in pair] for pair in words]


@pytest.mark.parametrize(("policy", "table"), POLICIES)
def test_policies_are_the_paper_s(policy, table):
    expected = parsed(table)
    assert len(expected) == 25
    for ours, pair in zip(policy().policies, expected, strict=True):
        assert list(ours) == [
            (name, p, level if name in STRONGEST else None) for name, p, level in pair
        ]


def test_ranges_are_the_paper_s():
    for name, (_, lowest, highest) in OPERATIONS.items():
        expected = (WEAKEST.get(name, 0), STRONGEST.get(name, 0))
        assert (lowest, highest) == pytest.approx(expected), name


@pytest.mark.parametrize(("policy", "table"), POLICIES)
def test_an_operation_is_applied_with_its_probability_at_its_level(monkeypatch, policy, table):
    applied: list[tuple[str, float]] = []
    for name, (_, lowest, highest) in OPERATIONS.items():

        def record(img: Image.Image, magnitude: float, name: str = name) -> Image.Image:
            applied.append((name, magnitude))
            return img

        monkeypatch.setitem(autoaugment.OPERATIONS, name, (record, lowest, highest))
    for index, pair in enumerate(parsed(table)):
        monkeypatch.setattr(random, "randint", lambda a, b, i=index: (a, b) == (0, 24) and i)
        just_below = [p - 1e-9 for _, p, _ in pair]
        for numbers, probable in ((just_below, True), ([p for _, p, _ in pair], False)):
            drawn = iter(numbers)
            monkeypatch.setattr(random, "random", lambda drawn=drawn: next(drawn))
            applied.clear()
            policy()(image(4, 4, 0))
            assert [name for name, _ in applied] == [name for name, _, _ in pair if probable]
            for (name, magnitude), (_, _, level) in zip(applied, pair):
                if name in STRONGEST:
                    low = WEAKEST.get(name, 0)
                    expected = low + (STRONGEST[name] - low) * level / 9
                    assert magnitude == pytest.approx(expected)


def grey_levels(img: Image.Image) -> int:
    return len(np.unique(np.asarray(img)[..., 0]))


def ramp() -> Image.Image:
    """All 256 grey levels."""
    return Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")


def test_posterize_keeps_eight_to_four_bits():
    apply, lowest, highest = OPERATIONS["Posterize"]
    bits = [
        grey_levels(apply(ramp(), lowest + (highest - lowest) * level / 9)).bit_length() - 1
        for level in range(10)
    ]
    assert bits == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]


# --- RandAugment ----------------------------------------------------------------------------------

NONE, FACTOR, SHEAR, SHARE, DEGREES = (0, 1), (0.1, 1.9), (-0.3, 0.3), (-0.3, 0.3), (-30, 30)
RANDAUGMENT = [
    ("autocontrast", *NONE),
    ("equalize", *NONE),
    ("invert", *NONE),
    ("rotate", 0, 30),
    ("posterize", 0, 4),
    ("solarize", 0, 256),
    ("solarize_add", 0, 110),
    ("color", *FACTOR),
    ("contrast", *FACTOR),
    ("brightness", *FACTOR),
    ("sharpness", *FACTOR),
    ("shear_x", 0, 0.3),
    ("shear_y", 0, 0.3),
    ("cutout_pixels", 0, 40),
    ("translate_x_pixels", 0, 100),
    ("translate_y_pixels", 0, 100),
]
RANDAUGMENT2 = [
    ("autocontrast", *NONE),
    ("brightness", *FACTOR),
    ("color", *FACTOR),
    ("contrast", *FACTOR),
    ("equalize", *NONE),
    ("identity", *NONE),
    ("invert", *NONE),
    ("posterize", 0, 4),
    ("rotate", *DEGREES),
    ("sharpness", *FACTOR),
    ("shear_x", *SHEAR),
    ("shear_y", *SHEAR),
    ("solarize", 0, 256),
    ("translate_x", *SHARE),
    ("translate_y", *SHARE),
]
FIXMATCH_FACTOR = (0.05, 0.95)
FIXMATCH = [
    ("autocontrast", *NONE),
    ("brightness", *FIXMATCH_FACTOR),
    ("color", *FIXMATCH_FACTOR),
    ("contrast", *FIXMATCH_FACTOR),
    ("equalize", *NONE),
    ("identity", *NONE),
    ("posterize", 4, 8),
    ("rotate", *DEGREES),
    ("sharpness", *FIXMATCH_FACTOR),
    ("shear_x", *SHEAR),
    ("shear_y", *SHEAR),
    ("solarize", 0, 256),
    ("translate_x", *SHARE),
    ("translate_y", *SHARE),
]


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (randaugment.RANDAUGMENT_OPERATIONS, RANDAUGMENT),
        (randaugment.RANDAUGMENT2_OPERATIONS, RANDAUGMENT2),
        (randaugment.FIXMATCH_OPERATIONS, FIXMATCH),
    ],
    ids=["RandAugment", "RandAugment2", "FixMatch"],
)
def test_operations_and_ranges(ours, expected):
    named = [(getattr(randaugment, f"_{name}"), low, high) for name, low, high in expected]
    assert [tuple(operation) for operation in ours] == named


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_enhancing_operations(name):
    img = image(14, 16, 0)
    expected = getattr(ImageEnhance, name.capitalize())(img).enhance(0.7)
    assert getattr(randaugment, f"_{name}")(img, 0.7).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("operations", "strengths", "bits"),
    [  # of 0 to 4 bits (at least one) at magnitudes 0, 10, 15, 23 and 30; of 4 to 8
        (randaugment.RANDAUGMENT_OPERATIONS, (0, 1 / 3, 1 / 2, 23 / 30, 1), [1, 1, 2, 3, 4]),
        (randaugment.RANDAUGMENT2_OPERATIONS, (0, 1 / 3, 1 / 2, 23 / 30, 1), [1, 1, 2, 3, 4]),
        (randaugment.FIXMATCH_OPERATIONS, (0, 0.3, 1 / 2, 0.8, 1), [4, 5, 6, 7, 8]),
    ],
    ids=["RandAugment", "RandAugment2", "FixMatch"],
)
def test_posterize(operations, strengths, bits):
    (posterize,) = [op for op in operations if op.apply is randaugment._posterize]
    kept = [grey_levels(posterize(ramp(), s)).bit_length() - 1 for s in strengths]
    assert kept == bits


def test_magnitude_thirty_is_the_strongest(monkeypatch):
    strengths: list[float] = []

    def record(img: Image.Image, value: float) -> Image.Image:
        strengths.append(value)
        return img

    operation = randaugment.Operation(record, 0, 1)
    monkeypatch.setattr(randaugment, "RANDAUGMENT_OPERATIONS", (operation,))
    for m in (0, 10, 30):
        RandAugment(n=1, m=m)(image(4, 4, 0))
    assert strengths == pytest.approx([0, 1 / 3, 1])


def test_defaults_and_probability(monkeypatch):
    """Two operations; RandAugment2 leaves each out with probability 0.4, FixMatch never."""
    assert (RandAugment().n, RandAugment().m) == (2, 10)
    assert (RandAugment2().n, RandAugment2().p, RandAugmentFixMatch().n) == (2, 0.6, 2)
    strengths: list[float] = []

    def record(img: Image.Image, value: float) -> Image.Image:
        strengths.append(value)
        return img

    operation = randaugment.Operation(record, 0, 1)
    monkeypatch.setattr(randaugment, "RANDAUGMENT2_OPERATIONS", (operation,))
    monkeypatch.setattr(randaugment, "FIXMATCH_OPERATIONS", (operation,))
    numbers = iter([0.6, 0.25, 0.6 + 1e-9])  # applied at 0.25; left out
    monkeypatch.setattr(random, "random", lambda: next(numbers))
    monkeypatch.setattr(random, "choices", lambda operations, k: list(operations) * k)
    RandAugment2()(image(4, 4, 0))
    assert strengths == [0.25]
    numbers = iter([0.75, 0.5])
    RandAugmentFixMatch()(image(4, 4, 0))
    assert strengths == [0.25, 0.75, 0.5]
