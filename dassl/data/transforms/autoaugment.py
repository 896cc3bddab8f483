"""AutoAugment: learned augmentation policies (Cubuk et al., arXiv:1805.09501).

A policy is 25 sub-policies of two operations, each with a probability and a magnitude level
(appendix, the policies found on reduced CIFAR-10, SVHN and ImageNet). torchvision holds these
tables, so they are taken from there. Its class is not used to apply them: it draws from PyTorch's
generator and fills uncovered pixels with black; the golden images need Python's generator and grey.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

GREY = (128, 128, 128)
MAX_LEVEL = 9  # levels 0..9 divide each operation's range evenly


def _signed(value: float) -> float:
    """Returns `value` or `-value`; one `random.choice`."""
    return value * random.choice((-1, 1))


def _affine(img: Image.Image, matrix: tuple[float, ...], resample: int) -> Image.Image:
    return img.transform(img.size, Image.Transform.AFFINE, matrix, resample, fillcolor=GREY)


def _enhancer(kind: type) -> Callable[[Image.Image, float], Image.Image]:
    """An `ImageEnhance` class as an operation: factor 1 ± magnitude."""
    return lambda img, magnitude: kind(img).enhance(1 + _signed(magnitude))


def _shear_x(img: Image.Image, magnitude: float) -> Image.Image:
    return _affine(img, (1, _signed(magnitude), 0, 0, 1, 0), Image.Resampling.BICUBIC)


def _shear_y(img: Image.Image, magnitude: float) -> Image.Image:
    return _affine(img, (1, 0, 0, _signed(magnitude), 1, 0), Image.Resampling.BICUBIC)


def _translate_x(img: Image.Image, magnitude: float) -> Image.Image:
    shift = _signed(magnitude * img.width)
    return _affine(img, (1, 0, shift, 0, 1, 0), Image.Resampling.NEAREST)


def _translate_y(img: Image.Image, magnitude: float) -> Image.Image:
    shift = _signed(magnitude * img.height)
    return _affine(img, (1, 0, 0, 0, 1, shift), Image.Resampling.NEAREST)


# Name → (operation, magnitude at level 0, magnitude at level 9): the ranges of the paper's list of
# image transformations (appendix), from the identity to the strongest; a random sign gives the
# other half of a symmetric range. Translate is in fractions of the image side: 150 pixels of 331.
# Rotate has no random sign (the golden images turn one way), unlike in the paper.
OPERATIONS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], float, float]] = {
    "ShearX": (_shear_x, 0.0, 0.3),
    "ShearY": (_shear_y, 0.0, 0.3),
    "TranslateX": (_translate_x, 0.0, 150 / 331),
    "TranslateY": (_translate_y, 0.0, 150 / 331),
    "Rotate": (lambda img, degrees: img.rotate(degrees, fillcolor=GREY), 0.0, 30.0),
    "Color": (_enhancer(ImageEnhance.Color), 0.0, 0.9),
    "Posterize": (lambda img, bits: ImageOps.posterize(img, round(bits)), 8.0, 4.0),
    "Solarize": (lambda img, threshold: ImageOps.solarize(img, threshold), 256.0, 0.0),
    "Contrast": (_enhancer(ImageEnhance.Contrast), 0.0, 0.9),
    "Sharpness": (_enhancer(ImageEnhance.Sharpness), 0.0, 0.9),
    "Brightness": (_enhancer(ImageEnhance.Brightness), 0.0, 0.9),
    "AutoContrast": (lambda img, _: ImageOps.autocontrast(img), 0.0, 0.0),
    "Equalize": (lambda img, _: ImageOps.equalize(img), 0.0, 0.0),
    "Invert": (lambda img, _: ImageOps.invert(img), 0.0, 0.0),
}


class _Policy:
    """Applies one of the 25 sub-policies, chosen anew for every image.

    Draws, all from Python's generator: one `randint` for the sub-policy; then for each of its two
    operations one `random` that decides whether to apply it and, if a signed operation is applied,
    one `choice` for the sign.
    """

    table: AutoAugmentPolicy

    def __init__(self) -> None:
        self.policies = tuple(AutoAugment(self.table).policies)

    def __call__(self, img: Image.Image) -> Image.Image:
        chosen = self.policies[random.randint(0, len(self.policies) - 1)]
        for name, probability, level in chosen:
            if random.random() < probability:
                apply, lowest, highest = OPERATIONS[name]
                magnitude = lowest + (highest - lowest) * (level or 0) / MAX_LEVEL
                img = apply(img, magnitude)
        return img

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ImageNetPolicy(_Policy):
    """The policy learned on ImageNet; see `_Policy` for what it draws."""

    table = AutoAugmentPolicy.IMAGENET


class CIFAR10Policy(_Policy):
    """The policy learned on CIFAR-10; see `_Policy` for what it draws."""

    table = AutoAugmentPolicy.CIFAR10


class SVHNPolicy(_Policy):
    """The policy learned on SVHN; see `_Policy` for what it draws."""

    table = AutoAugmentPolicy.SVHN
