"""The transcript in docs/using_a_prompt.md is what comes out when it is typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_the_transcript(desk: Path):
    for name in NEEDED:
        pytest.importorskip(name)
    (desk / "compare.py").write_text(compare_py(), encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(desk), "OMP_NUM_THREADS": "1"}
    answers = {}
    for command, expected in transcript():
        done = subprocess.run(
            command, shell=True, cwd=desk, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert words(done.stdout) == words(expected), f"{command}\n{done.stdout}"
        answers[command] = done.stdout
    *_, again, compared = answers.values()
    assert len(again.split()) == 5
    assert [line.split()[1:] for line in compared.splitlines()] == [again.split()] * 3
