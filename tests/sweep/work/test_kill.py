"""A sweep that is killed again and again ends where one ends that is left alone.

The first one that is killed is typed; the others are forked, as are their workers.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dassl.utils.results import read_records
from sweep.cli import main
from sweep.plan.request import Request
from sweep.plan.run import ROOT
from sweep.work import runner
from sweep.work.execute import Job, execute
from sweep.work.folder import UNFINISHED, RunFolder
from tests.forks import start_sweep
from tests.runs import make_eurosat

pytestmark = pytest.mark.slow

KILLS = 2
JOBS = 4
REQUEST = Request(
    "base2new",
    trainers=("ZeroshotCLIP", "CoOp"),
    datasets=("eurosat",),
    seeds=(1, 2),
    shots=(4,),
    backbone="tiny",
    recipe="CoOp/tiny",
    opts=("OPTIM.MAX_EPOCH", "30"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    whole = tmp_path_factory.mktemp("whole")
    for run in REQUEST.runs():
        execute(Job(run, whole, str(data)))
    found = accuracies(whole)
    assert None not in found.values()
    return found


def start(data: Path, output: Path, *more: str, typed: bool = False) -> subprocess.Popen:
    place = ["--root", str(data), "--output", str(output), "--jobs", str(JOBS), *more]
    what, _, opts = REQUEST.flags().partition(" --opts ")
    arguments = ["run", *what.split(), *place, "--opts", *opts.split()]
    heard = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    if not typed:
        return start_sweep(*arguments, **heard, start_new_session=True)
    command = [sys.executable, "-m", "sweep", *arguments]
    return subprocess.Popen(command, cwd=ROOT, **heard, start_new_session=True)


def wait_for_runs(process: subprocess.Popen, ended: int, seconds: float) -> None:
    """Waits until some runs have ended, and then for a while."""
    for line in process.stdout:
        ended -= line.startswith("[")
        if ended < 1:
            break
    time.sleep(seconds)


def accuracies(output: Path) -> dict[str, float]:
    records = {run: RunFolder(run, output).record() for run in REQUEST.runs()}
    return {run.title: record and record["metrics"]["accuracy"] for run, record in records.items()}


def check_end(data: Path, output: Path, expected: dict[str, float], finished: set[str]) -> None:
    """Lets the sweep end; it must be as if it had been left alone."""
    process = start(data, output)
    out = process.communicate(timeout=240)[0]
    assert process.returncode == 0, out
    assert accuracies(output) == expected
    for title in finished:
        assert f"done    {title}:" not in out, "a finished run was repeated"
    check_one_record_each(output)


def check_one_record_each(output: Path) -> None:
    for run in REQUEST.runs():
        records = list(read_records(run.folder(output) / "results.jsonl"))
        assert len(records) == 1, f"{run.title} was evaluated {len(records)} times"
    halves = [path for path in output.rglob("*.part") if not path.name.startswith(".run.json")]
    halves = [path for path in halves if UNFINISHED not in path.parts]  # put aside as it was left
    assert halves == [], "half a file"


def finished_in(output: Path) -> set[str]:
    return {title for title, value in accuracies(output).items() if value is not None}


def workers_of(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return list(map(int, path.read_text().split()))


def test_killed_and_restarted(data: Path, expected: dict[str, float], tmp_path: Path):
    draw = random.Random(0)
    for ended in range(1, KILLS + 1):
        process = start(data, tmp_path, typed=ended == 1)
        wait_for_runs(process, ended, draw.uniform(0.0, 1.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        finished = finished_in(tmp_path)
    check_end(data, tmp_path, expected, finished)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_restarted(
    signum: signal.Signals, data: Path, expected: dict[str, float], tmp_path: Path
):
    process = start(data, tmp_path)
    wait_for_runs(process, 2, random.Random(int(signum)).uniform(0.0, 1.0))
    os.kill(process.pid, signum)
    out = process.communicate(timeout=60)[0]
    assert process.returncode in (130, 143, -signum)
    assert "Traceback" not in out
    check_end(data, tmp_path, expected, finished_in(tmp_path))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_a_worker_that_is_killed_takes_its_run_alone_with_it(
    data: Path, expected: dict[str, float], tmp_path: Path
):
    process = start(data, tmp_path)
    wait_for_runs(process, 1, 0.1)
    workers = workers_of(process)
    if workers:  # else all is done
        os.kill(workers[0], signal.SIGKILL)
    out = process.communicate(timeout=240)[0]
    assert process.returncode in (0, 1), out
    if process.returncode:
        assert "killed by signal 9" in out
    check_end(data, tmp_path, expected, finished_in(tmp_path))


def test_two_sweeps_and_two_shards_on_one_folder(
    data: Path, expected: dict[str, float], tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(runner, "BUSY_RETRY", 0.2)  # also in processes that are forked
    shards = [("--shard", "0/2"), ("--shard", "1/2"), (), ()]
    processes = [start(data, tmp_path, *shard) for shard in shards]
    while any(process.poll() is None for process in processes):  # looking on disturbs nobody
        assert main(["status", "--output", str(tmp_path)]) == 0
        time.sleep(0.2)
    for process in processes:
        out = process.communicate(timeout=240)[0]
        assert process.returncode == 0, out
    assert accuracies(tmp_path) == expected
    check_one_record_each(tmp_path)
