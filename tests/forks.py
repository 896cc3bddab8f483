"""Processes of their own for tests of kills, signals and locks; forked, so they import nothing.

That a command starts from nothing is for tests that type it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import train
from dassl.utils.cli import run_cli
from sweep.cli import main
from sweep.work import worker

_Popen = subprocess.Popen


def forked(work: Callable[[], int | None], **settings: Any) -> subprocess.Popen:
    """Starts a process that calls `work` and ends with its exit code; None is 0.

    Args:
        work: what to do there.
        settings: those of `subprocess.Popen`.
    """
    environment = settings.pop("env", None)

    def live() -> None:
        code = 1
        try:
            let_go_of_files()  # `Popen`, which waits for that, sees that the process lives
            sys.stdin, sys.stdout, sys.stderr = (
                os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
            )
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if environment is not None:
                os.environ.clear()
                os.environ.update(environment)
            code = work() or 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    # `preexec_fn` is called in the new process, and here never lets it get to its command.
    return _Popen(["none"], preexec_fn=live, restore_signals=False, **settings)


def let_go_of_files() -> None:
    """Puts the null device in the place of all files but 0, 1 and 2.

    Closed, their numbers would go to new files, which an object that is left of the parent's could
    close once more.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/dev/fd")):
        if number > 2 and number != nowhere:
            os.dup2(nowhere, number, inheritable=False)


def start_training(*arguments: str, **settings: Any) -> subprocess.Popen:
    """Starts what `python train.py` does with these arguments."""

    def work() -> int:
        sys.argv = ["train.py", *arguments]
        return run_cli(train.command)

    return forked(work, **settings)


def popen(command: list[str], **settings: Any) -> subprocess.Popen:
    """`subprocess.Popen` for whoever starts workers of a sweep: those are forked."""
    if command[1:-1] != ["-m", "sweep.work.worker"]:
        return _Popen(command, **settings)
    return forked(lambda: worker.main(int(command[-1])), **settings)


def start_sweep(*arguments: str, **settings: Any) -> subprocess.Popen:
    """Starts what `python -m sweep` does with these arguments; its workers are forked as well."""

    def work() -> int:
        subprocess.Popen, sys.argv = popen, ["sweep", *arguments]
        codes: list[int] = []
        return run_cli(lambda: codes.append(main(list(arguments)))) or codes[0]

    return forked(work, **settings)
