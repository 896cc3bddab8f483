"""What a command says, and how much of it: terminals, pipes, notes, grammar, next steps."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

import predict
from dassl.utils import setup_logger
from dassl.utils.logger import get_logger, talking
from dassl.utils.text import counted
from scripts import demo
from sweep.cli import build_parser, main
from sweep.plan.request import kept_requests
from sweep.report import show
from tests.runs import make_eurosat, run

logger = get_logger("tests")


def test_quiet_hides_nothing_from_the_log(tmp_path: Path, capsys):
    with setup_logger(str(tmp_path)), talking(quiet=True):
        logger.info("an epoch")
        logger.warning("Note: odd")
    logger.info("after")
    assert capsys.readouterr().out == "Note: odd\nafter\n"
    assert (tmp_path / "log.txt").read_text() == "an epoch\nNote: odd\n"


@pytest.mark.parametrize(
    ("terminal", "no_color", "flags", "colored"),
    [
        (True, "", [], True),
        (True, "1", [], False),
        (False, "", [], False),
        (True, "1", ["--color"], True),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    terminal: bool, no_color: str, flags: list, colored: bool, tmp_path: Path, monkeypatch
):
    given = []
    monkeypatch.setattr(show, "terminal", lambda grid, color: given.append(color) or "")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("NO_COLOR", no_color)
    assert main(["table", "demo", "--output", str(tmp_path), *flags]) == 0
    assert given == [colored]


def test_numbers_agree():
    assert [counted(n, "run") for n in (0, 1, 2, 1234)] == [
        "0 runs",
        "1 run",
        "2 runs",
        "1,234 runs",
    ]
    assert counted(3, "class", "classes") == "3 classes"


def test_the_demo_is_a_sweep_and_names_the_next_three_commands(tmp_path: Path, capsys):
    cells, output = demo.plan([1]), tmp_path / "out"
    demo.request([1]).save(output)
    assert [request.what for request in kept_requests(output)] == ["demo"]
    assert main(["status", "--output", str(output)]) == 0
    assert "0 finished, 0 running, 0 failed, 9 waiting" in capsys.readouterr().out
    lines = demo.next_steps(cells, Path("data"), output).splitlines()
    report, pictures, own = (shlex.split(line.split(":  ")[1]) for line in lines)
    build_parser().parse_args(report[3:])
    assert pictures[1] == "predict.py"
    args = predict.build_parser().parse_args(pictures[2:])
    assert Path(pictures[2]) in [run.folder(output) for cell in cells for run in cell.runs], args
    assert build_parser().parse_args(own[3:]).datasets == ["folder"]


@pytest.mark.slow
def test_a_note_where_the_embedded_clip_looks_at_pictures(tmp_path: Path, capsys):
    make_eurosat(tmp_path / "data")
    run(tmp_path / "data", tmp_path / "out", no_train=True)
    assert "Note: the embedded CLIP was trained on rendered glyphs" in capsys.readouterr().out
    run(tmp_path / "data", tmp_path / "digits", dataset="digits", recipe="CoOp/tiny", no_train=True)
    assert "glyphs" not in capsys.readouterr().out
