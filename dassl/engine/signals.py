"""Ctrl-C (SIGINT), SIGTERM and a lost terminal (SIGHUP) end a training where it can be continued.

The first signal asks; the training stops at the next batch, keeps its state, and says so. Where
nothing is being changed, such as while a batch is loaded or the test set is evaluated, it stops at
once. A second signal ends the process without more ado.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)]))


class TrainingStopped(KeyboardInterrupt):
    """A signal ended a training.

    Attributes:
        signum: the signal.
        folder: what `--resume` takes to go on; empty: there is nothing to go on from.
    """

    def __init__(self, signum: int, message: str = "", folder: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(signum).name}")
        self.signum, self.folder = signum, folder

    @property
    def exit_code(self) -> int:
        return 128 + self.signum  # as shells count: 130 for Ctrl-C, 143 for SIGTERM


class StopSignals:
    """Between `with` and its end, signals ask for a stop. Outside, and in threads, it does nothing.

    Attributes:
        asked: the signal that asked; None: go on.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._at_once = False
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> StopSignals:
        self.asked, self._pid = None, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if signal.getsignal(signum) != signal.SIG_IGN:  # as nohup has it
                    self._before[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def check(self) -> None:
        """Raises TrainingStopped if a signal asked for it."""
        if self.asked is not None:
            raise TrainingStopped(self.asked)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises TrainingStopped wherever the program is."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a worker of a loader, forked from here: the main process decides
        if self.asked is not None:
            self._end_now(signum)
        self.asked = signum
        if self._at_once:
            raise TrainingStopped(signum)

    def _end_now(self, signum: int) -> None:
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
