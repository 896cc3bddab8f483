"""How `whole_job` scales, splits and judges; and whether it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from threading import Thread
from typing import Any

import pytest

from benchmarks import whole_job, whole_job_runs
from benchmarks.bars import GPU_JOB_BARS, failures
from benchmarks.performance_plot import draw
from benchmarks.whole_job import (
    CPU_BARS,
    JOBS,
    PARTS,
    summary,
    whole_ours,
    whole_plain,
)
from benchmarks.whole_job_runs import Clock
from tests.forks import forked

JOB = JOBS[0]  # EuroSAT, CoCoOp: 100 epochs of 20 steps, 4,200 and 3,900 test images


def lap(total: float, data: float, image: float) -> dict[str, float]:
    return {"total": total, "data": data, "image": image}


def test_plain_is_scaled_by_steps_and_images():
    assert (JOB.steps, JOB.plain_test) == (2000, 100)
    took = {
        "start": 5.0,
        "train": [lap(9.0, 5.0, 1.0), lap(1.0, 0.0, 0.5), lap(3.0, 0.5, 1.5)],
        "test_base": [lap(1.5, 0.0, 0.5), lap(0.5, 0.0, 0.5)],
        "test_new": [lap(4.0, 0.0, 1.0)],
    }
    whole = whole_plain(JOB, took)
    assert whole["total"] == pytest.approx(5 + 2000 * 2 + 42 * 2 + 39 * 4)
    assert whole["data"] == pytest.approx(2000 * 0.25)
    assert whole["image"] == pytest.approx(2000 * 1 + 42 * 1 + 39 * 1)
    assert whole["text"] == pytest.approx(2000 * 0.75)
    assert whole["test"] == pytest.approx(42 * 1 + 39 * 3)
    assert whole["start"] == 5


def test_ours_is_scaled_but_for_what_happens_once():
    took = {
        "start": 8.0,
        "train": [lap(14.0, 3.0, 7.0), lap(10.0, 1.0, 6.0), lap(10.0, 1.0, 6.0)],
        "test": [lap(4.0, 0.5, 3.0), lap(2.0, 0.5, 1.0)],
    }
    whole = whole_ours(JOB, took, (45, 36))  # a hundredth of the test images
    assert whole["total"] == pytest.approx(8 + 14 + 99 * 10 + 600)
    assert whole["data"] == pytest.approx(3 + 99 + 100)
    assert whole["image"] == pytest.approx(7 + 99 * 6 + 400)
    assert whole["text"] == pytest.approx(4 + 99 * 3)
    assert whole["test"] == pytest.approx(100)
    assert sum(whole[part] for part in PARTS) == pytest.approx(whole["total"])


@pytest.mark.slow
def test_clock():
    """Parts within parts count once, other threads do not, and what happens once is taken out."""

    class Model:
        def read(self, seconds: float) -> None:
            time.sleep(seconds)

        def load(self) -> None:
            self.read(0.1)
            thread = Thread(target=self.read, args=(0.2,))
            thread.start()
            thread.join()

        def fold(self) -> None:
            time.sleep(0.2)

        def encode(self) -> None:
            self.fold()
            time.sleep(0.1)

        def run(self) -> None:
            self.load()
            self.encode()
            thread = Thread(target=self.read, args=(0.3,))
            thread.start()
            thread.join()

    clock = Clock()
    clock.parts(Model, "read", "data")
    clock.parts(Model, "load", "data")
    clock.parts(Model, "encode", "image")
    clock.once(Model, "fold")
    clock.phases(Model, "run", "train")
    for _ in range(2):
        Model().run()
    assert list(clock.laps) == ["train"] and len(clock.laps["train"]) == 2
    for entry in clock.laps["train"]:
        assert entry == pytest.approx(lap(0.7, 0.3, 0.1), abs=0.09)


def measured(plain: float, cold: float, second: float, done: float = 0.05) -> dict:
    rounds = [
        {
            name: {"total": total, **dict.fromkeys(PARTS, total / 5)}
            for name, total in (("plain", plain), ("cold", cold), ("second", second))
        }
    ]
    test = tuple(round(done * n) for n in JOB.shape.test)
    return summary(JOB, rounds, round(done * JOB.epochs), test)


def test_bars(capsys):
    assert failures([measured(100, 10, 4)], CPU_BARS) == 0
    assert "pass         eurosat CoCoOp, cold: times faster: 10" in capsys.readouterr().out
    assert failures([measured(100, 20, 6)], CPU_BARS) == 2
    assert failures([], CPU_BARS) == 2
    without_plain = summary(JOB, [{"cold": {"total": 1.0}}], 5, (210, 195))
    assert failures([without_plain], CPU_BARS) == 2
    assert capsys.readouterr().out.count("not measured") == 4


def test_bar_of_a_gpu_needs_the_whole_job(capsys):
    assert failures([measured(100, 10, 4)], GPU_JOB_BARS) == 1
    assert "not measured" in capsys.readouterr().out
    assert failures([measured(100, 10, 4, done=1)], GPU_JOB_BARS) == 0
    assert failures([measured(100, 31, 4, done=1)], GPU_JOB_BARS) == 1


def test_bars_are_not_for_small_models(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["whole_job.py", "--quick", "--check"])
    with pytest.raises(SystemExit) as stop:
        whole_job.main()
    assert stop.value.code == 2 and "real size" in capsys.readouterr().err


def run_forked(request: dict[str, Any]) -> dict[str, Any]:
    """As `whole_job.run`, but Python and torch are there already."""

    def work() -> None:
        sys.argv = ["whole_job_runs.py", json.dumps({**request, "started": time.time()})]
        whole_job_runs.main()

    process = forked(work, stdout=subprocess.PIPE, text=True)
    said = process.communicate()[0]
    assert process.returncode == 0
    return json.loads(said.splitlines()[-1])


@pytest.mark.slow
def test_quick(tmp_path, monkeypatch):
    path, run = tmp_path / "results.json", whole_job.run
    monkeypatch.setattr(
        whole_job, "run", lambda r: run(r) if r["path"] == "plain" else run_forked(r)
    )
    command = ["whole_job.py", "--quick", "--jobs", JOB.name, "--json", str(path)]
    monkeypatch.setattr("sys.argv", command)
    assert whole_job.main() == 0
    report = json.loads(path.read_text())
    (result,) = report["results"]
    assert result["done"] == {"epochs": 5, "of": 100, "test_images": [400, 400]}
    assert result["cold"]["image"] > 0 and result["second"]["image"] == 0
    assert result["cold_ratio"] > 0 and "whole_seconds" not in result
    for name in ("plain", "cold", "second"):
        parts = [result[name][part] for part in PARTS]
        assert min(parts) >= 0 and sum(parts) == pytest.approx(result[name]["total"])
    draw(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
