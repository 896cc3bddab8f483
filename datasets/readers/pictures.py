"""What an image of one's own shows: any of Pillow's modes as RGB, with its true range.

The benchmarks keep the public preprocessing, `image.convert("RGB")` of the stored pixels. It clips
grey levels above 255, forgets the orientation that a phone writes down, takes the colours of any
profile for sRGB, and lays bare what lies under transparent pixels; nobody means that of their own
images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from dassl.utils import DataError, open_image
from dassl.utils.text import spelled
from datasets.readers.image_checks import ends_in_zeros, ends_well

TGA_ENDINGS = (".tga", ".icb", ".vda", ".vst")  # TGA has no signature: its ending must tell
DEEP_GREY = ("I", "F")  # and I;16, I;16B, ...: modes with more than 256 levels
UNUSED_ALPHA = ("BMP", "DIB", "TGA")  # many programs leave zeros there

SUBFILE, BITS, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 254, 258, 262, 274, 339  # TIFF's tags
LOWEST, HIGHEST = (340, 280), (341, 281)  # SMinSampleValue, MinSampleValue; and the maxima
THUMBNAIL, WHITE_IS_ZERO, SIGNED = 1, 0, 2
ROUNDING = 2  # levels by which profiles of sRGB differ


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
            return self.show(image)

    def show(self, image: Image.Image) -> Image.Image:
        """Returns an image that Pillow opened in RGB.

        Raises:
            ValueError: it does not say what its values mean.
        """
        self._require_known_colours(image)
        _scale_clear_colour(image)
        image.load()
        return self._shown(image)

    def check(self, path: str) -> None:
        """Raises as a call does, but looks at no more of the file than it must."""
        with opened(path) as image:
            self._require_known_colours(image)
            whole = ends_well(path, image)
            if not whole and image.format in ("JPEG", "MPO") and ends_in_zeros(path):
                raise ValueError("its end is zeros, as after a broken copy")
            if image.mode[0] in DEEP_GREY:
                whole = whole and self._limits(image) is not None
        if not whole:
            self(path)

    def _shown(self, image: Image.Image) -> Image.Image:
        orientation = _orientation(image)  # before a conversion forgets it
        if image.format in UNUSED_ALPHA and image.mode == "RGBA":
            image = image if any(image.getextrema()[3]) else image.convert("RGB")
        if image.mode[0] in DEEP_GREY:
            shown = self._grey(image)
        elif image.mode == "LAB":
            shown = _from_lab(image)
        elif image.mode in ("RGBa", "La"):  # colours that are multiplied by alpha already
            shown = self._laid_down(image.convert(image.mode.upper()))
        elif image.has_transparency_data:
            shown = self._laid_down(image)
        else:
            shown = _in_srgb(image)
        if orientation in range(2, 9):
            shown.getexif()[ORIENTATION] = orientation
            shown = ImageOps.exif_transpose(shown)
        return shown

    def _laid_down(self, image: Image.Image) -> Image.Image:
        alpha = image.convert("RGBA").getchannel("A")
        grey = image.mode in ("L", "LA")
        top = _in_srgb(image.convert("RGBA").convert("L" if grey else "RGB"))
        top.putalpha(alpha)
        ground = Image.new("RGBA", image.size, ImageColor.getrgb(self.background))
        return Image.alpha_composite(ground, top).convert("RGB")

    def _require_known_colours(self, image: Image.Image) -> None:
        if image.mode == "P" and image.palette is None:
            raise ValueError("its pixels are numbers of a palette, and there is no palette")
        # Pillow keeps 8 of the 16 bits.
        if self.value_range and image.mode[0] not in DEEP_GREY and ";16" in _raw_mode(image):
            raise ValueError(
                f"it has colours of 16 bits, to which DATASET.VALUE_RANGE {self.value_range} "
                "cannot be applied; convert it to 8 bits, or to grey levels"
            )

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
            raise DataError(f"image {spelled(path)} cannot be read: it has no mark of an image")
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


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # text that is no EXIF, in an image that is whole: viewers pass over it
        return None


def _raw_mode(image: Image.Image) -> str:
    """Returns how the pixels are stored in the file, such as "L;4"; "" once they are loaded."""
    tile = getattr(image, "tile", ())  # an image made in memory has none
    args = tile[0][3] if tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _scale_clear_colour(image: Image.Image) -> None:
    """PNG states the clear colour in the depth of the file; Pillow scales the pixels alone."""
    clear, raw = image.info.get("transparency"), _raw_mode(image)
    if image.format != "PNG" or not isinstance(clear, int | tuple) or image.mode in ("1", "P"):
        return
    if raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    elif raw in ("L;2", "L;4"):
        image.info["transparency"] = clear * {"L;2": 85, "L;4": 17}[raw]


def _in_srgb(image: Image.Image) -> Image.Image:
    """Returns an image without transparency as RGB; the colours are those of its profile."""
    if image.mode not in ("L", "CMYK"):
        image = image.convert("RGB")
    transform = _to_srgb(image.info.get("icc_profile"), image.mode)
    return image.convert("RGB") if transform is None else ImageCms.applyTransform(image, transform)


@lru_cache(maxsize=32)
def _to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns what converts colours to sRGB; None where they are sRGB's already.

    A damaged profile, or one of another mode, counts as none, as in all viewers.
    """
    if not profile:
        return None
    try:
        given, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(given, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1)  # (6, 6, 6, 3)
    colours = Image.fromarray(levels.reshape(36, 6, 3)).convert(mode)
    shown = np.asarray(ImageCms.applyTransform(colours, transform)).astype(int)
    same = np.abs(shown - np.asarray(colours.convert("RGB"))).max() <= ROUNDING
    return None if same and mode != "CMYK" else transform


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
