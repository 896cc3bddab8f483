"""Text files that people write: the encoding is told by the file or a setting, never guessed."""

from __future__ import annotations

import codecs
import filecmp
import os
from pathlib import Path

from dassl.utils import DataError, MissingFileError

MARKS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NO_TEXT = (b"PK\3\4", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"%PDF", b"SQLite format 3", b"PAR1")


def find_file(name: str, root: Path) -> Path | None:
    """Returns where the file is: as given, or below `root`; None if there is none.

    Raises:
        DataError: there are two, and they differ.
    """
    if not name.strip() or "\0" in name:
        return None
    given = Path(home_expanded(name))
    # os.path.isfile says no, where Path.is_file raises: a list of names may be too long for a path.
    found = [place.absolute() for place in (given, root / given) if os.path.isfile(place)]
    if len(found) == 2 and not filecmp.cmp(*found, shallow=False):
        raise DataError(
            f"{name} is there twice, as {found[0]} and as {found[1]}; type the whole path of the "
            "one that counts"
        )
    return found[0] if found else None


def home_expanded(path: str) -> str:
    """Returns the path with ~ at its start replaced, but not in names such as ~1.jpg."""
    return os.path.expanduser(path) if path == "~" or path.startswith(("~/", "~\\")) else path


def read_text(path: Path, encoding: str = "") -> str:
    """Returns what a text file says.

    Args:
        path: UTF-8, or what the mark at its start says, or UTF-16 without one.
        encoding: DATASET.ENCODING, for files in anything else: two encodings such as Latin-1 and
            GBK read the same bytes as different words, and nothing in the file tells which.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is not text in that encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror or error}") from None
    if content.startswith(NO_TEXT):
        raise DataError(
            f"{path} is a spreadsheet, an archive or the like, no text; export it as CSV in UTF-8"
        )
    marked = next((name for mark, name in MARKS if content.startswith(mark)), "")
    name = marked or encoding or _utf(content)
    try:
        text = content.decode(name)
    except LookupError:
        raise DataError(
            f"DATASET.ENCODING is {encoding!r}, which Python does not know; expected a name such "
            "as latin-1, gbk or utf-16"
        ) from None
    except UnicodeError as error:
        raise DataError(
            f"{path} is not {name.upper()} text ({error}); save it as UTF-8, or name its encoding, "
            "such as DATASET.ENCODING latin-1"
        ) from None
    if "\0" in text:
        raise DataError(f"{path} is no text file: it holds bytes of zero; save it as UTF-8 text")
    return text


def _utf(content: bytes) -> str:
    """Returns the Unicode encoding of a text without a mark; zeros stand in UTF-16 alone."""
    start = content[:4096]
    high, low = start[::2].count(0), start[1::2].count(0)  # of big-endian and little-endian text
    if len(content) % 2 or (high and low) or 4 * (high + low) < len(start) or not start:
        return "utf-8"  # a few zeros are no text in any encoding
    return "utf-16-be" if high else "utf-16-le"
