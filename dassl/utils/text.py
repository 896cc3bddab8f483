"""Text that others wrote, such as names of classes, on its way to terminals and spreadsheets."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TextIO

# Control characters (C0 but for \t and \n, C1), line separators, marks that turn the direction of
# writing, and halves of characters, which stand for undecodable bytes in the names of files.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# What looks like a common blank, or like nothing.
_UNSEEN = re.compile("[\t\n\xa0\xad\u2000-\u200b\u202f\u205f\u2060]")
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠].", re.DOTALL)


def visible(text: str) -> str:
    r"""Returns a text that a terminal shows and does not obey: ESC is written \x1b."""
    return _CONTROL.sub(_escaped, text)


def composed(name: str) -> str:
    """Returns a name in one form (NFC), whatever a disk or an archive has made of it."""
    return unicodedata.normalize("NFC", name)


def counted(number: int, one: str, many: str = "") -> str:
    """Returns "1 run", "2 runs", "1,000 runs"; `many` is the plural of an irregular word."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def on_one_line(name: str) -> str:
    """Returns a name with blanks in place of line breaks, tabs and other control characters."""
    return _BREAKS.sub(" ", name).strip()


def spelled(name: str) -> str:
    r"""Returns a name as a message shows it: on one line, with \xa0 for a blank that is none."""
    return _UNSEEN.sub(_escaped, visible(name))


def unseen(text: str) -> list[str]:
    """Returns the names of characters that nobody sees, such as ZERO WIDTH SPACE, but for blanks.

    They come along when text is copied from web pages; a tokenizer reads them as letters.
    """
    found = dict.fromkeys(c for c in text if unicodedata.category(c)[0] == "C" and not c.isspace())
    return [unicodedata.name(c, f"U+{ord(c):04X}") for c in found]


def printable(text: str, stream: TextIO) -> str:
    r"""Returns what of a text `stream` can encode; é becomes \xe9 where it cannot."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


def _escaped(found: re.Match) -> str:
    return found[0].encode("unicode_escape").decode()


def csv_cell(value: Any) -> Any:
    """Returns a cell of a CSV file that a spreadsheet shows and does not run.

    A text that begins like a formula, such as =1+1, gets an apostrophe in front. Numbers, also
    those that are written as texts, stay as they are.
    """
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
        return value
    except ValueError:
        return f"'{value}"
