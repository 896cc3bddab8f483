"""Progress: a bar on a terminal, a line now and then in a notebook, nothing in a pipe."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace

import pytest

from dassl.utils import bars, logger, terminal
from dassl.utils.bars import bar, shows_bars
from dassl.utils.logger import get_logger, talking


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def notebook(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))


def steps(count: int = 1000, **kwargs: object) -> str:
    assert list(bar("testing", range(count), unit="images", **kwargs)) == list(range(count))


def test_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    steps()
    drawn = sys.stderr.getvalue()
    assert "testing" in drawn and drawn.endswith("\r"), "it vanishes at the end"
    assert shows_bars()


def test_in_a_pipe(capsys):
    steps()
    assert capsys.readouterr() == ("", "") and not shows_bars()


def test_where_quiet_is_wanted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with talking(quiet=True):
        steps()
        assert not shows_bars()
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(("every", "lines"), [(10.0, 0), (0.0, 1000)])
def test_in_a_notebook(every: float, lines: int, notebook, monkeypatch, capsys):
    monkeypatch.setattr(bars, "EVERY", every)
    steps(miniters=1)
    shown = capsys.readouterr()
    assert shown.err == "" and "\r" not in shown.out
    found = shown.out.splitlines()
    assert (len(found) >= lines * 0.9) if lines else (found == [])
    assert all(line.startswith("testing: ") and " of 1000 images" in line for line in found)


def test_nobody_knows_how_many(notebook, monkeypatch, capsys):
    monkeypatch.setattr(bars, "EVERY", 0.0)
    with bar("unpacking", unit="files", miniters=1) as files:
        files.update(3)
    assert "unpacking: 3 files in 00:00" in capsys.readouterr().out


def test_lines_of_progress_in_a_notebook(notebook, monkeypatch, capsys, tmp_path):
    """A training prints thousands; a notebook would keep them all. The log has them."""
    said = get_logger("tests")
    monkeypatch.setattr(logger.PlainHandler, "_told", -logger.EVERY)
    with logger.setup_logger(str(tmp_path)):
        for number in range(50):
            said.info(f"epoch {number}", extra={"progress": True})
        said.info("the end")
    assert capsys.readouterr().out == "epoch 0\nthe end\n"
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 51


def test_details_are_said_where_they_are_wanted(capsys):
    said = get_logger("tests")
    said.debug("a detail")
    with talking(verbose=True):
        said.debug("where it comes from")
    assert said.getEffectiveLevel() == logging.INFO
    with pytest.raises(OSError), talking(verbose=True):
        raise FileNotFoundError("no such thing")
    shown = capsys.readouterr()
    assert shown.out == "where it comes from\n"
    assert "Traceback" in shown.err and "test_bars.py" in shown.err


@pytest.mark.parametrize(
    ("on_terminal", "variables", "colored"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colors(on_terminal: bool, variables: dict, colored: bool, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if on_terminal else io.StringIO()
    assert terminal.wants_colors(stream) == colored
