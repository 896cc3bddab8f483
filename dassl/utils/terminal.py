"""Where output goes: a terminal takes colours and lines that change, a notebook neither."""

from __future__ import annotations

import os
import sys
from typing import TextIO

EVERY = 10.0  # seconds between two lines of progress where no line can change


def in_notebook() -> bool:
    """Whether a notebook shows what is printed: it keeps each line, and a cursor cannot go back."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None and not sys.stdout.isatty()


def wants_colors(stream: TextIO) -> bool:
    """Whether to colour what goes to a stream: NO_COLOR, then FORCE_COLOR, then: is it a terminal?

    As Python's own tools decide (https://docs.python.org/3/using/cmdline.html#using-on-controlling-color).
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"
