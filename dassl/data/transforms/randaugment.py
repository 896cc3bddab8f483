"""RandAugment (Cubuk et al., arXiv:1909.13719) in the three forms that training recipes name.

`RandAugment` uses one magnitude for all operations, as in section 3 of the paper, with the sixteen
operations of UDA's code (Xie et al., arXiv:1904.12848). `RandAugment2` and `RandAugmentFixMatch`
draw a magnitude per operation; the latter's operations and ranges are those of FixMatch (Sohn et
al., arXiv:2001.07685, appendix, list of transformations used in RandAugment). All randomness comes
from Python's generator, except the place of a cut-out hole (NumPy's).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from dassl.utils.errors import ConfigError

MAX_MAGNITUDE = 30
CUTOUT_COLOR = (125, 123, 114)  # close to the mean colour of ImageNet


class Operation(NamedTuple):
    """An image operation and the values at its lowest and highest magnitude."""

    apply: Callable[[Image.Image, float], Image.Image]
    lowest: float
    highest: float

    def __call__(self, img: Image.Image, strength: float) -> Image.Image:
        """Applies the operation at `strength` in [0, 1] of its range."""
        return self.apply(img, strength * (self.highest - self.lowest) + self.lowest)


def _mirrored(value: float) -> float:
    """Returns `value` or, in half the cases, `-value`; one `random.random`."""
    return -value if random.random() > 0.5 else value


def _affine(img: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return img.transform(img.size, Image.Transform.AFFINE, matrix)  # nearest pixel, black outside


def _enhancer(kind: type) -> Callable[[Image.Image, float], Image.Image]:
    return lambda img, factor: kind(img).enhance(factor)


def _shear_x(img: Image.Image, value: float) -> Image.Image:
    return _affine(img, (1, _mirrored(value), 0, 0, 1, 0))


def _shear_y(img: Image.Image, value: float) -> Image.Image:
    return _affine(img, (1, 0, 0, _mirrored(value), 1, 0))


def _translate_x(img: Image.Image, fraction: float) -> Image.Image:
    return _translate_x_pixels(img, fraction * img.width)


def _translate_y(img: Image.Image, fraction: float) -> Image.Image:
    return _translate_y_pixels(img, fraction * img.height)


def _translate_x_pixels(img: Image.Image, pixels: float) -> Image.Image:
    return _affine(img, (1, 0, _mirrored(pixels), 0, 1, 0))


def _translate_y_pixels(img: Image.Image, pixels: float) -> Image.Image:
    return _affine(img, (1, 0, 0, 0, 1, _mirrored(pixels)))


def _rotate(img: Image.Image, degrees: float) -> Image.Image:
    return img.rotate(_mirrored(degrees))


def _posterize(img: Image.Image, bits: float) -> Image.Image:
    return ImageOps.posterize(img, max(1, int(bits)))


def _solarize(img: Image.Image, threshold: float) -> Image.Image:
    return ImageOps.solarize(img, threshold)


def _solarize_add(img: Image.Image, addition: float) -> Image.Image:
    """Brightens every pixel, then inverts those from 128 on.

    UDA's own code brightens only the dark pixels; the PyTorch ports brighten all, and so do we.
    """
    return ImageOps.solarize(img.point(lambda grey: min(255, int(grey + addition))), 128)


def _cutout_pixels(img: Image.Image, side: float) -> Image.Image:
    """Paints a square of `side` pixels; draws x, then y, with `numpy.random.random`.

    A draw runs from `size` DOWN to 1, as the ports' `numpy.random.uniform(size)` does (its one
    argument is the low end, the high end is 1): the same squares for the same seed.
    """
    x, y = (size + (1 - size) * np.random.random() for size in img.size)
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    box = (left, top, min(img.width, left + side), min(img.height, top + side))
    painted = img.copy()
    ImageDraw.Draw(painted).rectangle(box, CUTOUT_COLOR)
    return painted


def _autocontrast(img: Image.Image, _: float) -> Image.Image:
    return ImageOps.autocontrast(img)


def _equalize(img: Image.Image, _: float) -> Image.Image:
    return ImageOps.equalize(img)


def _invert(img: Image.Image, _: float) -> Image.Image:
    return ImageOps.invert(img)


def _identity(img: Image.Image, _: float) -> Image.Image:
    return img


_brightness = _enhancer(ImageEnhance.Brightness)
_color = _enhancer(ImageEnhance.Color)
_contrast = _enhancer(ImageEnhance.Contrast)
_sharpness = _enhancer(ImageEnhance.Sharpness)

# The order within a list decides which operation a given random number picks.
RANDAUGMENT_OPERATIONS = (
    Operation(_autocontrast, 0, 1),
    Operation(_equalize, 0, 1),
    Operation(_invert, 0, 1),
    Operation(_rotate, 0, 30),
    Operation(_posterize, 0, 4),
    Operation(_solarize, 0, 256),
    Operation(_solarize_add, 0, 110),
    Operation(_color, 0.1, 1.9),
    Operation(_contrast, 0.1, 1.9),
    Operation(_brightness, 0.1, 1.9),
    Operation(_sharpness, 0.1, 1.9),
    Operation(_shear_x, 0, 0.3),
    Operation(_shear_y, 0, 0.3),
    Operation(_cutout_pixels, 0, 40),
    Operation(_translate_x_pixels, 0, 100),
    Operation(_translate_y_pixels, 0, 100),
)
RANDAUGMENT2_OPERATIONS = (
    Operation(_autocontrast, 0, 1),
    Operation(_brightness, 0.1, 1.9),
    Operation(_color, 0.1, 1.9),
    Operation(_contrast, 0.1, 1.9),
    Operation(_equalize, 0, 1),
    Operation(_identity, 0, 1),
    Operation(_invert, 0, 1),
    Operation(_posterize, 0, 4),
    Operation(_rotate, -30, 30),
    Operation(_sharpness, 0.1, 1.9),
    Operation(_shear_x, -0.3, 0.3),
    Operation(_shear_y, -0.3, 0.3),
    Operation(_solarize, 0, 256),
    Operation(_translate_x, -0.3, 0.3),
    Operation(_translate_y, -0.3, 0.3),
)
FIXMATCH_OPERATIONS = (
    Operation(_autocontrast, 0, 1),
    Operation(_brightness, 0.05, 0.95),
    Operation(_color, 0.05, 0.95),
    Operation(_contrast, 0.05, 0.95),
    Operation(_equalize, 0, 1),
    Operation(_identity, 0, 1),
    Operation(_posterize, 4, 8),
    Operation(_rotate, -30, 30),
    Operation(_sharpness, 0.05, 0.95),
    Operation(_shear_x, -0.3, 0.3),
    Operation(_shear_y, -0.3, 0.3),
    Operation(_solarize, 0, 256),
    Operation(_translate_x, -0.3, 0.3),
    Operation(_translate_y, -0.3, 0.3),
)


class RandAugment:
    """`n` operations, drawn with replacement, all at magnitude `m`.

    Draws: `random.choices` for the operations; then, as each is applied, one `random.random` if it
    has a direction, two numbers of `numpy.random` if it cuts out a hole.

    Args:
        n: operations per image.
        m: magnitude, 0 to 30.

    Raises:
        ConfigError: (a ValueError) `m` is out of range.
    """

    def __init__(self, n: int = 2, m: float = 10) -> None:
        if not 0 <= m <= MAX_MAGNITUDE:
            raise ConfigError(f"INPUT.RANDAUGMENT_M is {m}; expected 0 to {MAX_MAGNITUDE}.")
        self.n = n
        self.m = m

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation in random.choices(RANDAUGMENT_OPERATIONS, k=self.n):
            img = operation(img, self.m / MAX_MAGNITUDE)
        return img


class RandAugment2:
    """`n` operations, each applied with probability `p` at its own random magnitude.

    Draws, all from Python's generator: `choices` for the operations; then for each one `random`
    that decides whether it is applied, and if so one for the magnitude and, where the operation
    has a direction, one for that.
    """

    def __init__(self, n: int = 2, p: float = 0.6) -> None:
        self.n = n
        self.p = p

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation in random.choices(RANDAUGMENT2_OPERATIONS, k=self.n):
            if random.random() <= self.p:
                img = operation(img, random.random())
        return img


class RandAugmentFixMatch:
    """`n` operations of FixMatch's list, each at its own random magnitude.

    Draws, all from Python's generator: `choices` for the operations; then for each one `random`
    for the magnitude and, where it has a direction, one for that.
    """

    def __init__(self, n: int = 2) -> None:
        self.n = n

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation in random.choices(FIXMATCH_OPERATIONS, k=self.n):
            img = operation(img, random.random())
        return img
