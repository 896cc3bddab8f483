"""Text that others wrote, such as names of classes, on its way to terminals and spreadsheets."""

from __future__ import annotations

import re
from typing import Any, TextIO

# Control characters (C0 but for \t and \n, C1), line separators, marks that turn the direction of
# writing, and halves of characters, which stand for undecodable bytes in the names of files.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠].", re.DOTALL)


def visible(text: str) -> str:
    r"""Returns a text that a terminal shows and does not obey: ESC is written \x1b."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable(text: str, stream: TextIO) -> str:
    r"""Returns what of a text `stream` can encode; é becomes \xe9 where it cannot."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


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
