"""SIGINT and SIGTERM: the first asks, the second ends; outside of a training they are as ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from dassl.engine.signals import SIGNALS, StopSignals, TrainingStopped
from dassl.utils.cli import run_cli
from tests.runs import ROOT


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_first_asks(signum: int):
    before = [signal.getsignal(s) for s in SIGNALS]
    with StopSignals() as signals:
        signals.check()
        os.kill(os.getpid(), signum)
        assert signals.asked == signum
        with pytest.raises(TrainingStopped, match=signal.Signals(signum).name):
            signals.check()
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_at_once_where_nothing_changes():
    with StopSignals() as signals:
        with pytest.raises(TrainingStopped), signals.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("not reached")
        with pytest.raises(TrainingStopped), signals.at_once():
            raise AssertionError("it was asked before")


@pytest.mark.slow
def test_the_second_ends():
    with StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt) as error:
            os.kill(os.getpid(), signal.SIGINT)
        assert not isinstance(error.value, TrainingStopped)
    code = (
        "import os, signal; from dassl.engine.signals import StopSignals\n"
        "with StopSignals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -signal.SIGTERM


def test_what_is_ignored_stays_ignored():
    """As in a process that nohup started, or a shell in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.asked is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_a_thread_nothing_happens():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("signum", SIGNALS)
def test_exit_codes_are_those_of_shells(signum: int, capsys):
    def command() -> None:
        raise TrainingStopped(signum, "stopped; to go on: ...")

    assert run_cli(command) == 128 + signum
    assert capsys.readouterr().err == "stopped; to go on: ...\n"
