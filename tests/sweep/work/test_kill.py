"""A sweep that is killed again and again ends where one ends that is left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dassl.utils.results import read_records
from sweep.plan.request import Request
from sweep.plan.run import ROOT
from sweep.work.execute import Job, execute
from sweep.work.folder import RunFolder

pytestmark = pytest.mark.slow

KILLS = 2
REQUEST = Request(
    "base2new",
    trainers=("ZeroshotCLIP", "CoOp"),
    datasets=("digits",),
    seeds=(1, 2),
    shots=(4,),
    opts=("OPTIM.MAX_EPOCH", "30"),
)


def start(data: Path, output: Path) -> subprocess.Popen:
    place = ["--root", str(data), "--output", str(output), "--jobs", "2"]
    what, _, opts = REQUEST.flags().partition(" --opts ")
    command = [sys.executable, "-m", "sweep", "run", *what.split(), *place, "--opts", *opts.split()]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def accuracies(output: Path) -> dict[str, float]:
    records = {run: RunFolder(run, output).record() for run in REQUEST.runs()}
    return {run.title: record and record["metrics"]["accuracy"] for run, record in records.items()}


def test_killed_and_restarted(tmp_path: Path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in REQUEST.runs():
        execute(Job(run, whole, str(tmp_path / "data")))
    expected = accuracies(whole)
    assert None not in expected.values()

    draw = random.Random(0)
    finished: list[set[str]] = []
    for _ in range(KILLS):
        process = start(tmp_path / "data", broken)
        for _ in range(4 + len(REQUEST.table().setting.methods)):  # the plan, then runs begin
            process.stdout.readline()
        time.sleep(draw.uniform(1.0, 5.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        finished.append({title for title, value in accuracies(broken).items() if value is not None})
    process = start(tmp_path / "data", broken)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    assert accuracies(broken) == expected
    for title in finished[-1]:
        assert f"done    {title}:" not in out, "a finished run was repeated"
    for run in REQUEST.runs():
        records = list(read_records(run.folder(broken) / "results.jsonl"))
        assert len(records) == 1, f"{run.title} was evaluated {len(records)} times"
