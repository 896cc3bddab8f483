"""What a command line does with an error: a user's mistake is a message, ours a traceback."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any

from dassl.stop import stop
from dassl.utils.errors import UserError
from dassl.utils.system_errors import system_errors_explained
from dassl.utils.text import printable

__all__ = ["run_cli", "stop"]


def run_cli(command: Callable[[], Any]) -> int:
    """Calls `command` and returns the exit code.

    0: done; 2: a user's mistake, told in a sentence; 130: Ctrl-C; 141: whoever read the output,
    such as `head`, wants no more of it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for a console that lacks letters
    try:
        with system_errors_explained():
            command()
            sys.stdout.flush()  # what is written at the end of the process can fail as well
    except UserError as error:
        for line in printable(str(error), sys.stderr).split("\n"):
            # A command to type is shown as it is, to be copied.
            print(line if line.startswith("  ") else f"error: {line}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # nothing at the end
        return 141
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    return 0
