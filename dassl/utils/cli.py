"""What a command line does with an error: a user's mistake is a message, ours a traceback."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from dassl.stop import stop
from dassl.utils.errors import UserError
from dassl.utils.system_errors import system_errors_explained
from dassl.utils.text import printable

__all__ = ["run_cli", "stop"]


def run_cli(command: Callable[[], Any]) -> int:
    """Calls `command` and returns the exit code: what it returns, if that is a whole number.

    0: done; 2: a user's mistake, told in a sentence; 130: Ctrl-C; 141: whoever read the output,
    such as `head`, wants no more of it.
    """
    sys.stdout, sys.stderr = _open(sys.stdout), _open(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for a console that lacks letters
    try:
        with system_errors_explained():
            try:
                code = command()
            finally:
                _flush()  # here, where it is known what to do if that fails
    except UserError as error:
        for line in printable(str(error), sys.stderr).split("\n"):
            # A command to type is shown as it is, to be copied.
            print(line if line.startswith("  ") else f"error: {line}", file=sys.stderr)
        _drop_what_is_left()
        return 2
    except BrokenPipeError:
        _drop_what_is_left()
        return 141
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    return code if type(code) is int else 0


def _open(stream: TextIO | None) -> TextIO:
    """Returns a stream, or one to nowhere for one that was closed before we began (`>&-`)."""
    return stream or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"standard output takes nothing more: {error.strerror}") from error


def _drop_what_is_left() -> None:
    """Lets Python's last flush succeed where standard output takes nothing any more."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, AttributeError, ValueError):  # it may be no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
