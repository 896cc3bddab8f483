"""A training that is killed, however and whenever, ends bit for bit as one that is not.

The short set of `benchmarks/faults.py`. A process is forked for each run.
"""

from __future__ import annotations

import os
import random
import re
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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes"),
]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module", params=CASES, ids=[case.name for case in CASES])
def whole(request, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, dict]:
    """A case, and the traces of its run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(request.param, root, out)
    return request.param, traces(out)


@pytest.mark.parametrize("signum", SIGNALS, ids=[s.name for s in SIGNALS])
def test_killed_at_random_moments(whole: tuple[Case, dict], root: Path, tmp_path: Path, signum):
    case, expected = whole
    draw = random.Random(f"{case.name} {signum}")
    out = tmp_path / "run"
    for _ in range(2):
        flags = ("--resume", str(out)) if (out / "config.yaml").is_file() else ()
        code = kill_after(draw.uniform(0.3, 1.2), signum, case.arguments(root, out, *flags))
        assert code in (0, -signum, 128 + signum)
    finish(case, root, out)
    assert differences(expected, traces(out)) == []


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        (r"progress\.pt", "half"),
        (r"model.*", "before"),
        ("checkpoint", "after"),
        (r"results\.jsonl", "half"),
    ],
)
def test_killed_in_writing(whole, root: Path, tmp_path: Path, name: str, moment: str):
    case, expected = whole
    out = tmp_path / "run"
    code = wait(start(case.arguments(root, out), die_in_writing(name, 1, moment)))
    assert code in (0, -signal.SIGKILL)
    finish(case, root, out)
    assert differences(expected, traces(out)) == []


def test_the_message_is_the_command_that_goes_on(root: Path, tmp_path: Path):
    """Typed as it stands, with blanks in the path, it ends the run; then there is nothing left."""
    case, out = CASES[0], tmp_path / "my run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "train.py", *case.arguments(root, out)]
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=-1
    )
    for line in process.stdout:
        if line.startswith("epoch [3/"):
            process.terminate()
            break
    message = process.communicate()[1]
    assert process.returncode == 143
    assert "stopped by SIGTERM in epoch" in message
    command = re.search(r"To go on: python (.*)", message).group(1)
    for expected in ("accuracy", "is finished"):
        done = subprocess.run(
            f"{sys.executable} {command}",
            shell=True,
            cwd=ROOT,
            env=environment,
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert len((out / "results.jsonl").read_text().splitlines()) == 1
