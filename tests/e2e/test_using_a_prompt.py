"""The transcript in docs/using_a_prompt.md is what comes out when it is typed."""

from __future__ import annotations

import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import predict
import prompts.__main__
import train
from tests.runs import ROOT

PAGE = ROOT / "docs/using_a_prompt.md"
WRITTEN = ("data", "output")  # by the commands, in a folder of their own
NEEDED = ("safetensors", "onnxscript", "onnxruntime", "open_clip", "transformers")


def transcript() -> list[tuple[str, str]]:
    """Returns the commands of the page's transcript, each with what it answers."""
    (block,) = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, answer) for command, _, answer in (part.partition("\n") for part in parts)]


def compare_py() -> str:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"```python title=\"compare.py\"\n(.*?)```", text, re.DOTALL)[0]


def words(answer: str) -> list[str]:
    """Returns an answer without numbers, whose last digits a machine decides, and without lines."""
    return [w for w in re.sub(r"[\d.,%]+|-{2,}", " ", answer).split() if w]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder that looks like the repository's root and takes what is written."""
    for path in ROOT.iterdir():
        if path.name not in WRITTEN and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def answer(line: str) -> str:
    """Types a line of the transcript; what Python does is done here, the rest by a shell."""
    found = re.fullmatch(r"python (\S+\.py|-m prompts) ?(.*?)(?: < (\S+))?(?: ([|>].*))?", line)
    if found is None:
        return shell(line)
    program, words, given, rest = found.groups()
    out = io.StringIO()
    with Path(given or os.devnull).open() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", file)
        with redirect_stdout(out):
            PROGRAMS[program](shlex.split(words))
    return shell(f"cat {rest}", out.getvalue()) if rest else out.getvalue()


def shell(line: str, given: str = "") -> str:
    done = subprocess.run(line, shell=True, input=given, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


PROGRAMS = {
    "train.py": lambda words: train.main(train.build_parser().parse_args(words)),
    "predict.py": lambda words: predict.main(predict.build_parser().parse_args(words)),
    "-m prompts": prompts.__main__.main,
    "compare.py": lambda words: runpy.run_path("compare.py", run_name="__main__"),
}


@pytest.mark.slow
def test_the_transcript(desk: Path, monkeypatch: pytest.MonkeyPatch):
    for name in NEEDED:
        pytest.importorskip(name)
    (desk / "compare.py").write_text(compare_py(), encoding="utf-8")
    monkeypatch.chdir(desk)
    answers = {}
    for line, expected in transcript():
        answers[line] = answer(line)
        assert words(answers[line]) == words(expected), f"{line}\n{answers[line]}"
    *_, again, compared = answers.values()
    assert len(again.split()) == 5
    assert [line.split()[1:] for line in compared.splitlines()] == [again.split()] * 3
