"""What a run says: module loggers print plain lines, and a run's log file keeps a copy of them."""

from __future__ import annotations

import glob
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from dassl.utils.errors import UserError
from dassl.utils.terminal import EVERY, in_notebook
from dassl.utils.text import printable, visible

LOG = "log.txt"
_LATER = re.compile(r"-(\d{4}(?:-\d\d){5})(?:-(\d+))?")  # time, and number within its second


class PlainHandler(logging.Handler):
    """Prints each message as it is: the lines that log parsers know have no date and no level.

    Attributes:
        shown: the least level that reaches the terminal; a log file gets everything from INFO on.
    """

    shown = logging.INFO
    _told = 0.0  # when a line of progress was shown last

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout  # whatever stands for it at the moment
        shown = record.levelno >= PlainHandler.shown and not self._too_often(record)
        if shown:
            print(printable(record.getMessage(), stream), flush=True)
        elif isinstance(stream, Logger) and record.levelno >= logging.INFO:
            stream.write_to_file(f"{printable(record.getMessage(), stream)}\n")

    @staticmethod
    def _too_often(record: logging.LogRecord) -> bool:
        """Whether this is a line of progress for a notebook, which keeps all lines for ever."""
        if not getattr(record, "progress", False) or not in_notebook():
            return False
        now = time.monotonic()
        if now - PlainHandler._told < EVERY:
            return True
        PlainHandler._told = now
        return False


def get_logger(name: str) -> logging.Logger:
    """Returns the logger of a module; its package prints plain lines.

    Args:
        name: `__name__` of the module.
    """
    package = logging.getLogger(name.partition(".")[0])
    if not package.handlers:
        package.addHandler(PlainHandler())
        package.setLevel(min(PlainHandler.shown, logging.INFO))
    return logging.getLogger(name)


@contextmanager
def talking(quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Says how much is said inside; a log file gets the same in any case.

    Args:
        quiet: notes and worse alone, and no progress.
        verbose: details as well, and where in the program an error arises.
    """
    before = PlainHandler.shown
    _show(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    except (UserError, OSError):
        if verbose:
            traceback.print_exc()
        raise
    finally:
        _show(before)


def _show(level: int) -> None:
    PlainHandler.shown = level
    for package in logging.root.manager.loggerDict.values():
        if any(isinstance(one, PlainHandler) for one in getattr(package, "handlers", ())):
            package.setLevel(min(level, logging.INFO))


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what loggers say, warnings included; for a question whose answer is all that counts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Logger:
    """Stands in for `sys.stdout`: writes to the console and, from `open()` on, to a file.

    What is written before `open()` is kept and goes to the file then, so a run that fails while it
    is being built leaves no folder behind.

    Args:
        fpath: the log file; None: console only. If there is one, it stays, and a later one is
            opened: `log.txt-<time>`, then `log.txt-<time>-2`, ...
        delay: wait for `open()` with creating the file.
    """

    def __init__(self, fpath: str | None = None, delay: bool = False) -> None:
        self.console = sys.stdout
        self.fpath = fpath
        self.file: TextIO | None = None
        self._kept: list[str] = []
        if not delay:
            self.open()

    def open(self) -> None:
        """Creates the file and writes what was kept so far. Calling it again does nothing."""
        if self.fpath is None or self.file is not None:
            return
        Path(self.fpath).parent.mkdir(parents=True, exist_ok=True)
        path = _new_log(Path(self.fpath))
        self.fpath, self.file = str(path), path.open("a", encoding="utf-8")
        self.file.writelines(self._kept)
        self._kept.clear()
        self.file.flush()

    def write(self, msg: str) -> None:
        # A carriage return is left to the progress bars of others; our messages hold none.
        msg = "\r".join(visible(part) for part in msg.split("\r"))
        self.console.write("\r".join(printable(part, self.console) for part in msg.split("\r")))
        self.write_to_file(msg)

    def write_to_file(self, msg: str) -> None:
        """Writes to the log file alone."""
        if self.file is not None:
            self.file.write(msg)
            if "\n" in msg:
                self.file.flush()  # whoever follows the log sees whole lines at once
        elif self.fpath is not None:
            self._kept.append(msg)

    def flush(self) -> None:
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def isatty(self) -> bool:
        return self.console.isatty()

    def fileno(self) -> int:
        return self.console.fileno()

    @property
    def encoding(self) -> str:
        """Whatever is written here reaches the file; the console gets what it can show."""
        return "utf-8"

    def close(self) -> None:
        """Gives `sys.stdout` back and closes the file."""
        if sys.stdout is self:
            sys.stdout = self.console
        if self.file is not None:
            self.file.close()
            self.file = None

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *args: object) -> None:
        try:
            if error is not None and not isinstance(error, UserError):
                self.open()  # an unexpected failure: everything that was said may help
            if error is not None and self.file is not None:
                self.file.write(f"error: {visible(str(error) or kind.__name__)}\n")
            self.close()
        except OSError:  # the disk may be full
            self.file = None
            if error is None:
                raise
            self.close()


def setup_logger(output: str | None = None, delay: bool = False) -> Logger | None:
    """Sends standard output to a log file as well.

    Args:
        output: a folder (the file is `log.txt` in it), or a path that ends in .txt or .log; None:
            nothing happens. An earlier log is kept (`Logger`).
        delay: create the file only when `Logger.open` is called.

    Returns:
        The logger that now stands in for `sys.stdout`; `close()` it to restore.
    """
    if output is None:
        return None
    fpath = Path(output)
    if fpath.suffix not in (".txt", ".log"):
        fpath = fpath / LOG
    sys.stdout = Logger(str(fpath), delay=delay)
    return sys.stdout


def current_log() -> Path | None:
    """Returns the log file that standard output goes to, if it does."""
    out = sys.stdout
    return Path(out.fpath) if isinstance(out, Logger) and out.file is not None else None


def log_files(folder: str | os.PathLike, name: str = LOG) -> list[Path]:
    """Returns the logs in a folder, the earliest first; other files are not called like them."""
    found = [(_order(path, name), path) for path in Path(folder).glob(f"{glob.escape(name)}*")]
    return [path for order, path in sorted(found) if order]


def _order(path: Path, first: str) -> tuple[str, int] | tuple[()]:
    """Returns what logs are sorted by; (): it is none."""
    if path.name == first:
        return ("", 1)
    later = _LATER.fullmatch(path.name[len(first) :])
    return (later[1], int(later[2] or 1)) if later else ()


def _new_log(first: Path) -> Path:
    """Creates the log that comes after all there are, whatever the clock says, and returns it."""
    while True:
        logs, path = log_files(first.parent, first.name), first
        if logs:
            last, number = _order(logs[-1], first.name)
            now = time.strftime("%Y-%m-%d-%H-%M-%S")
            end = now if now > last else f"{last}-{number + 1}"
            path = first.with_name(f"{first.name}-{end}")
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:  # of another process, just now
            continue
