"""How far something is: a bar on terminals, a line now and then in notebooks, nothing in pipes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from dassl.utils.logger import PlainHandler
from dassl.utils.terminal import EVERY, in_notebook
from dassl.utils.text import visible


def bar(
    what: str,
    of: Iterable | None = None,
    total: int | None = None,
    unit: str = "",
    shown: bool = True,
    **options: Any,
) -> tqdm:
    """Returns a bar, which `update` moves, or that moves itself with what it yields.

    Args:
        what: is going on; it stands in front.
        of: what is yielded.
        total: how many steps there are; None: as many as `of` has, or nobody knows.
        unit: of a step: "file"; "B" are bytes, told in kB, MB, ….
        shown: False: it is not wanted after all.
        options: other ones of tqdm's.
    """
    settings: dict[str, Any] = {
        **{"desc": visible(what), "total": total, "unit_scale": unit == "B", "leave": False},
        **{"unit": unit if unit == "B" else f" {unit}", **options},
    }
    if _quiet() or not shown:
        settings["disable"] = True
    elif in_notebook():
        known = total is not None or hasattr(of, "__len__")
        settings |= {"file": _Lines(), "bar_format": _SHARE if known else _COUNT}
        settings |= dict.fromkeys(("delay", "mininterval", "maxinterval"), EVERY)
    else:
        settings["disable"] = None  # tqdm's word for: unless standard error is a terminal
    return tqdm(of, **settings)


def shows_bars() -> bool:
    """Whether bars are shown; for programs of others, which draw their own."""
    return not _quiet() and sys.stderr.isatty()


def _quiet() -> bool:
    return PlainHandler.shown > logging.INFO


_SHARE = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt}{unit}, {remaining} left"
_COUNT = "{desc}: {n_fmt}{unit} in {elapsed}"


class _Lines:
    """Takes what tqdm draws over the same line again and again, and prints it line by line."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stdout.write(f"{text.strip()}\n")

    def flush(self) -> None:
        sys.stdout.flush()
