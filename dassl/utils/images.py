"""Opening images that others made: only formats we mean, only shapes that can be prepared."""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import Image, UnidentifiedImageError

from dassl.utils.errors import DataError, MissingFileError, UserError
from dassl.utils.text import spelled

# Pillow knows forty more; one of them (EPS) hands the file to another program, Ghostscript.
# TGA comes last, since its files have no mark at their beginning.
FORMATS = (
    *("JPEG", "PNG", "PPM", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000", "AVIF"),
    *("QOI", "PCX", "SGI", "DIB", "TGA"),
)
# The long side in short sides. Resizing the short side to 224 pixels makes 75 MB of such an image.
MAX_ASPECT = 500

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_SIGNS = {  # how a file begins → what it is
    rb"\Z": "it is empty",
    rb"\0{64}": "it holds nothing but zeros, as after a broken copy",
    rb"version https://git-lfs": "it stands for a file in Git LFS; type git lfs pull",
    rb"\s*<": "it is a web page or a drawing in XML",
    rb"....ftyp(hei|hev|mif|msf)": "it is HEIC, which is not read; convert it to JPEG",
}
# Pillow raises all of these for damaged files, depending on the format.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error),
)


@contextmanager
def open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Opens an image: `with open_image(path) as image`. Pixels are decoded when they are used.

    What is raised while the image is in use counts as damage of the file.

    Raises:
        MissingFileError: there is no such file.
        DataError: the path leads to something else than a file, the format is none of FORMATS,
            the shape is absurd, or the file is damaged.
    """
    try:
        _require_file(path)
        with Image.open(path, formats=_formats()) as image:
            _require_sane_shape(path, *image.size)
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise MissingFileError(f"image {_shown(path)} does not exist") from None
    except UnidentifiedImageError:
        raise DataError(f"image {_shown(path)} cannot be read: {_what_it_is(path)}") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"image {_shown(path)} cannot be read: it has more than "
            f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller, or cut it up"
        ) from None
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"image {_shown(path)} cannot be read: {reason}") from None


def read_image(path: str | os.PathLike) -> Image.Image:
    """Reads an image as RGB, as the public implementation does.

    Raises:
        MissingFileError, DataError: see `open_image`.
    """
    with open_image(path) as image:
        return image.convert("RGB")


def _what_it_is(path: str | os.PathLike) -> str:
    """Returns what may be said of a file that Pillow does not know."""
    with open(path, "rb") as file:  # noqa: PTH123
        start = file.read(64)
    for sign, words in _SIGNS.items():
        if re.match(sign, start, re.DOTALL):
            return words
    formats = ", ".join(_formats())
    return f"it is none of {formats}, or of a rare kind of them; convert it to PNG or JPEG"


def _shown(path: str | os.PathLike) -> str:
    return spelled(os.fspath(path))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()  # a Pillow may be built without some of them
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _require_file(path: str | os.PathLike) -> None:
    """Opening a pipe would wait for a writer; reading a device may never end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a device")
        raise DataError(f"image {_shown(path)} cannot be read: it is {kind}, not a file")


def _require_sane_shape(path: str | os.PathLike, width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short < 1 or long > MAX_ASPECT * short:
        raise DataError(
            f"image {_shown(path)} is {width} x {height} pixels; the long side may have at most "
            f"{MAX_ASPECT} times the pixels of the short one. Crop it, or leave it out."
        )
