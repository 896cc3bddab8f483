"""A training that is killed, however and whenever, ends bit for bit as one that is not.

The short set of `benchmarks/faults.py`. A process is forked for each run.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.killing import (
    CASES,
    ROOT,
    Case,
    die_in_writing,
    differences,
    finish,
    kill_after,
    start,
    traces,
    wait,
)
from tests.forks import start_training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes"),
]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WRITINGS = (
    *((r"progress\.pt", "half"), (r"model.*", "before"), ("checkpoint", "after")),
    (r"results\.jsonl", "half"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module", params=CASES, ids=[case.name for case in CASES])
def whole(request, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, dict]:
    """A case, and the traces of its run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(request.param, root, out)
    return request.param, traces(out)


def flags(out: Path) -> tuple[str, ...]:
    return ("--resume", str(out)) if (out / "config.yaml").is_file() else ()


def test_killed_at_random_moments(whole: tuple[Case, dict], root: Path, tmp_path: Path):
    """By each signal, one after the other."""
    case, expected = whole
    draw = random.Random(case.name)
    out = tmp_path / "run"
    for signum in draw.sample(SIGNALS, len(SIGNALS)):
        arguments = case.arguments(root, out, *flags(out))
        assert kill_after(draw.uniform(0.3, 1.2), signum, arguments) in (0, -signum, 128 + signum)
    finish(case, root, out)
    assert differences(expected, traces(out)) == []


def test_killed_in_writing(whole: tuple[Case, dict], root: Path, tmp_path: Path):
    """One file after the other: each start goes on from what the death before it has left."""
    case, expected = whole
    out = tmp_path / "run"
    for name, moment in WRITINGS:
        dies = die_in_writing(name, 1, moment)
        code = wait(start(case.arguments(root, out, *flags(out)), dies))
        assert code in (0, -signal.SIGKILL)
    assert code == -signal.SIGKILL, "each run writes its results"
    finish(case, root, out)
    assert differences(expected, traces(out)) == []


def test_the_message_is_the_command_that_goes_on(root: Path, tmp_path: Path):
    """Typed as it stands, with blanks in the path, it ends the run; then there is nothing left."""
    case, out = CASES[0], tmp_path / "my run"
    heard = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = start_training(*case.arguments(root, out), **heard)
    for line in process.stdout:
        if line.startswith("epoch [3/"):
            process.terminate()
            break
    message = process.communicate()[1]
    assert process.returncode == 143
    assert "stopped by SIGTERM in epoch" in message
    command = re.search(r"To go on: python (.*)", message).group(1)
    command = f"{sys.executable} {command}"
    typed = subprocess.run(command, shell=True, cwd=ROOT, text=True, capture_output=True)
    assert typed.returncode == 0, typed.stderr
    assert "accuracy" in typed.stdout
    again = start_training(*shlex.split(command)[2:], **heard)
    assert "is finished" in again.communicate()[0]
    assert again.returncode == 0
    assert len((out / "results.jsonl").read_text().splitlines()) == 1
