"""What an image of one's own shows: any of Pillow's modes as RGB, with its true range.

The benchmarks keep the public preprocessing, `image.convert("RGB")` of the stored pixels. It clips
grey levels above 255, forgets the orientation that a phone writes down, and lays bare what lies
under transparent pixels; nobody means that of their own images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from dassl.utils import DataError, open_image

TGA_ENDINGS = (".tga", ".icb", ".vda", ".vst")  # TGA has no signature: its ending must tell
DEEP_GREY = ("I", "F")  # and I;16, I;16B, ...: modes with more than 256 levels

SUBFILE, BITS, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 254, 258, 262, 274, 339  # TIFF's tags
LOWEST, HIGHEST = (340, 280), (341, 281)  # SMinSampleValue, MinSampleValue; and the maxima
THUMBNAIL, WHITE_IS_ZERO, SIGNED = 1, 0, 2


@dataclass(frozen=True)
class PictureReader:
    """Reads images as they are meant; two readers that are equal read alike.

    Grey levels count from black to white as the format says; where it does not, as `value_range`
    says. The orientation in the file is applied, transparent pixels show `background`, and of
    several frames or pages the first counts.

    Args:
        background: a colour as Pillow names it, such as "white" or "#808080".
        value_range: the levels of black and white for images with more than 256 grey levels;
            empty: as the files say.

    Raises:
        DataError: there is no such colour or range.
    """

    background: str = "white"
    value_range: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        try:
            clear = ImageColor.getrgb(self.background)[3:] not in ((), (255,))
        except (ValueError, AttributeError, TypeError):
            clear = True
        if clear:
            raise DataError(
                f"DATASET.BACKGROUND is {self.background!r}; expected a colour such as 'white', "
                "'black' or '#808080'"
            )
        limits = self.value_range
        numbers = all(isinstance(v, int | float) and np.isfinite(v) for v in limits)
        if limits and not (len(limits) == 2 and numbers and limits[0] < limits[1]):
            raise DataError(
                f"DATASET.VALUE_RANGE is {limits!r}; expected the values of black and of white, "
                "such as '(0, 4095)'"
            )

    @property
    def identity(self) -> str:
        """What decides on the pixels beside the image file: the settings, and this code."""
        code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        return f"{self!r} {code}"

    def __call__(self, path: str) -> Image.Image:
        """Returns the image in RGB.

        Raises:
            MissingFileError: there is no such file.
            DataError: it cannot be read, or it does not say what its values mean.
        """
        with opened(path) as image:
            image.load()
            return self._shown(image)

    def check(self, path: str) -> None:
        """Raises as a call does, but looks at no more of the file than it must."""
        with opened(path) as image:
            whole = _ends_well(path, image)
            if image.mode[0] in DEEP_GREY:
                whole = whole and self._limits(image) is not None
        if not whole:
            self(path)

    def _shown(self, image: Image.Image) -> Image.Image:
        orientation = _orientation(image)  # before a conversion forgets it
        if image.mode[0] in DEEP_GREY:
            shown = self._grey(image)
        elif image.mode == "LAB":
            shown = _from_lab(image)
        elif image.mode in ("RGBa", "La"):  # colours that are multiplied by alpha already
            shown = self._laid_down(image.convert(image.mode.upper()))
        elif image.has_transparency_data:
            shown = self._laid_down(image)
        else:
            shown = image.convert("RGB")
        if orientation in range(2, 9):
            shown.getexif()[ORIENTATION] = orientation
            shown = ImageOps.exif_transpose(shown)
        return shown

    def _laid_down(self, image: Image.Image) -> Image.Image:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, ImageColor.getrgb(self.background))
        return Image.alpha_composite(ground, image).convert("RGB")

    def _grey(self, image: Image.Image) -> Image.Image:
        values = np.asarray(image).astype(np.float64)
        limits = self._limits(image)
        if limits is None and np.isfinite(values).all() and 0 <= values.min() <= values.max() <= 1:
            limits = (0.0, 1.0)  # what libraries that compute with floats write
        if limits is None or not np.isfinite(values).all():
            spread = f"{np.nanmin(values):g} to {np.nanmax(values):g}"
            raise ValueError(
                f"its values go from {spread}, and it does not say which are black and white; "
                "type DATASET.VALUE_RANGE '(black, white)', such as '(0, 4095)', or convert it to "
                "8 bits"
            )
        low, high = limits
        shown = np.rint(255 * ((values - low) / (high - low)).clip(0, 1))
        if _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow heeds it for 8 bits alone
            shown = 255 - shown
        grey = Image.fromarray(shown.astype(np.uint8))
        clear = image.info.get("transparency")  # the one level that stands for "nothing here"
        if isinstance(clear, int):
            grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
            return self._laid_down(grey)
        return grey.convert("RGB")

    def _limits(self, image: Image.Image) -> tuple[float, float] | None:
        """Returns the values of black and white; None if only the pixels can tell."""
        if self.value_range:
            return self.value_range[0], self.value_range[1]
        low, high = (_first_tag(image, tags) for tags in (LOWEST, HIGHEST))
        if high is not None and high > (low or 0):
            return low or 0.0, high
        if image.mode.startswith("I;16"):
            bits = _tag(image, BITS)
            return 0.0, 2.0 ** (bits if isinstance(bits, int) else 16) - 1
        if image.mode == "I" and image.format in ("PNG", "PPM"):  # Pillow scales both to 16 bits
            return 0.0, 65535.0
        if image.mode == "F":
            return None
        raise ValueError(
            f"it has {_kind(image)} grey levels, and does not say which are black and white; type "
            "DATASET.VALUE_RANGE '(black, white)', such as '(0, 65535)', or convert it to 8 bits"
        )


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """Opens an image as `open_image` does, unless Pillow would show something else than it is."""
    with open_image(path) as image:
        if image.format == "TGA" and not path.lower().endswith(TGA_ENDINGS):
            raise DataError(f"image {path} cannot be read: it has no mark of an image")
        if image.format == "TIFF":
            _check_tiff(image)
            # Pillow maps the rows of a file into memory with the sides exchanged where the picture
            # is to be turned (seen up to Pillow 13); it maps only files whose name it knows.
            image.filename = ""
        yield image


def _check_tiff(image: Image.Image) -> None:
    if (_tag(image, SUBFILE) or 0) & THUMBNAIL:
        raise ValueError("its first page is a thumbnail, as in cameras' raw files; convert it")
    if _tag(image, SAMPLE_FORMAT) == SIGNED and image.mode == "L":
        raise ValueError("its values are signed, and Pillow reads them as unsigned; convert it")


def _ends_well(path: str, image: Image.Image) -> bool:
    """Whether a file that is usually cut short by a broken copy ends as its format does."""
    mark = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}.get(image.format or "")
    if mark is None:
        return True
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        end = file.read()
        if mark == b"\xff\xd9" and not end.strip(b"\0"):  # libjpeg takes zeros for pixels
            file.seek(0)
            if not file.read().rstrip(b"\0").endswith(mark):
                raise ValueError("its end is zeros, as after a broken copy")
    return mark in end


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # text that is no EXIF, in an image that is whole: viewers pass over it
        return None


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")


def _tag(image: Image.Image, tag: int) -> float | None:
    """Returns the first value of a TIFF tag; None in other formats, or without it."""
    value = getattr(image, "tag_v2", {}).get(tag)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return value


def _first_tag(image: Image.Image, tags: tuple[int, ...]) -> float | None:
    found = (_tag(image, tag) for tag in tags)
    return next((float(value) for value in found if value is not None), None)


def _kind(image: Image.Image) -> str:
    bits = _tag(image, BITS) or 32
    return f"{'signed ' if _tag(image, SAMPLE_FORMAT) == SIGNED else ''}{bits}-bit"
