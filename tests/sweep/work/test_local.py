"""Worker processes: their answers, how their death is told, and that none outlives its parent."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweep.cli import build_parser, sweep_of
from sweep.plan.run import ROOT, Run
from sweep.work.execute import Job, Outcome, execute
from sweep.work.local import LocalExecutor

JOB = Job(Run("CoOp", "digits", "CoOp/tiny", 2, opts=("OPTIM.MAX_EPOCH", "1")), Path("out"), "data")
ANSWER = json.dumps(asdict(Outcome("done", 90.0, 1.0)))


@pytest.fixture
def executor(monkeypatch):
    """Makes an executor whose workers run a few lines of Python instead."""
    made = []

    def make(script: str) -> LocalExecutor:
        popen = subprocess.Popen
        script = f"import os, sys, time; job = sys.stdin.readline(); {script}"

        def start(command, **kwargs):
            return popen([sys.executable, "-c", script], **kwargs)

        monkeypatch.setattr(subprocess, "Popen", start)
        made.append(LocalExecutor(1, 1))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_one_that_lost_its_gpu_ends(executor):
    """A process can never use it again after an illegal access, an assertion, a lost card."""
    failed = json.dumps(
        asdict(Outcome("failed", error="AcceleratorError: CUDA error: unspecified"))
    )
    one = executor(f"print('{failed}', flush=True); time.sleep(60)")
    assert outcome(one).state == "failed"
    assert one.workers == [None]


def outcome(executor: LocalExecutor) -> Outcome:
    executor.submit(JOB)
    assert executor.free == 0
    ((job, ended),) = executor.wait(60)
    assert job == JOB
    assert executor.free == 1
    return ended


def test_an_answer(executor):
    one = executor(f"print('{ANSWER}', flush=True); time.sleep(60)")
    assert outcome(one) == Outcome("done", 90.0, 1.0)
    assert one.wait(0.01) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "sys.stderr.write('first\\nno memory\\n'); sys.exit(3)",
            "exit code 3): no memory",
        ),
        ("os.kill(os.getpid(), 15)", "killed by signal 15)"),
        (
            "os.kill(os.getpid(), 9)",
            "killed by signal 9, as systems do when memory runs out: try fewer --jobs)",
        ),
        (f"sys.stdout.write('{ANSWER[:20]}'); sys.exit(0)", "exit code 0)"),
    ],
)
def test_a_dead_worker_is_told_and_replaced(
    executor, script: str, message: str, tmp_path: Path, monkeypatch
):
    """Also to `sweep status`: the process could not write its error itself."""
    monkeypatch.chdir(tmp_path)
    one = executor(script)
    for _ in range(2):  # the second by another process
        ended = outcome(one)
        assert ended.state == "failed"
        assert ended.error == f"its process died ({message}"
        assert one.wait(0.01) == []
    assert JOB.folder.state() == "failed"
    assert JOB.folder.error() == f"its process died ({message}"


def test_closing_ends_what_is_at_work(executor):
    one = executor("time.sleep(600)")
    one.submit(JOB)
    process = one.workers[0].process
    one.close()
    assert process.returncode is not None
    assert one.wait(1) == []


@pytest.mark.slow
def test_a_worker_ends_with_its_parent():
    command = [sys.executable, "-m", "sweep.work.worker", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["0", "2"])
def test_what_a_run_says_is_no_answer(tmp_path: Path, streams: str):
    """The worker answers one line, also if the run forks; the run's own lines are in its log."""
    opts = ("OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", streams)
    run, data = replace(JOB.run, opts=opts), str(tmp_path / "data")
    job = replace(JOB, run=run, output=tmp_path, root=data)
    executor = LocalExecutor(1, 1)
    try:
        executor.submit(job)
        ended = executor.wait(120)
    finally:
        executor.close()
    assert [outcome.state for _, outcome in ended] == ["done"], ended
    assert "* accuracy:" in (job.folder.path / "log.txt").read_text()


@pytest.mark.slow
def test_processes_change_neither_a_number_nor_the_identity(tmp_path: Path):
    """--workers says how many processes carry the streams, whose number stays."""
    opts = ("OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "2")
    run = replace(JOB.run, shots=16, opts=opts)
    found = {}
    for workers in ("1", "2"):
        flags = ["--workers", workers, "--output", str(tmp_path / workers)]
        args = build_parser().parse_args(
            ["run", "base2new", *flags, "--root", str(tmp_path / "data")]
        )
        (job,) = sweep_of([run], args).jobs.values()
        assert job.extra[:2] == ("DATALOADER.PROCESSES", workers)
        assert execute(job).state == "done"
        record = job.folder.record()
        assert f"PROCESSES: {workers}" in (job.folder.path / "config.yaml").read_text()
        found[workers] = (
            job.run.digest,
            record["config_digest"],
            record["metrics"],
            record["per_class"],
            os.path.relpath(job.folder.path, job.output),
        )
    assert found["1"] == found["2"]


def test_runs_share_cores_and_memory(monkeypatch):
    """What is set by hand stays; Ray's machines are others."""
    monkeypatch.setattr("sweep.cli.usable_cores", lambda: 16)
    monkeypatch.setattr("sweep.cli.cache_bytes", lambda mib: 12 * 2**30)

    def extra(*flags: str) -> tuple[str, ...]:
        args = build_parser().parse_args(["run", "base2new", "--jobs", "4", *flags])
        (job,) = sweep_of([JOB.run], args).jobs.values()
        return job.extra

    memory = ("DATALOADER.CACHE_MB", "3072")
    assert extra() == ("DATALOADER.PROCESSES", "4", *memory)
    assert extra("--workers", "7") == ("DATALOADER.PROCESSES", "7", *memory)
    assert extra("--opts", "DATALOADER.PROCESSES", "2", "DATALOADER.CACHE_MB", "0") == ()
    assert extra("--executor", "ray") == ()
