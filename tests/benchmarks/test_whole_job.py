"""How `whole_job` scales, splits and judges; and whether it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.whole_job import JOBS, PARTS, check, whole_ours, whole_plain

ROOT = Path(__file__).resolve().parents[2]
JOB = JOBS[0]  # EuroSAT, CoCoOp: 100 epochs of 20 steps, 4,200 and 3,900 test images


def test_plain_is_scaled_by_steps_and_images():
    assert JOB.steps == 2000
    took = {"start": 5.0, "step": 2.0, "test_base": 0.1, "test_new": 0.2}
    assert whole_plain(JOB, took) == pytest.approx(5 + 4000 + 420 + 780)


def test_ours_is_scaled_but_for_what_happens_once():
    lap = {"train": 10.0, "train/data": 1.0, "train/image": 6.0}
    first = {"train": 14.0, "train/data": 3.0, "train/image": 7.0}
    took = {
        "start": 8.0,
        "epochs": [first, lap, lap],
        "test": 6.0,
        "test/data": 1.0,
        "test/image": 4.0,
    }
    whole = whole_ours(JOB, took, (45, 36))  # a hundredth of the test images
    assert whole["total"] == pytest.approx(8 + 14 + 99 * 10 + 600)
    assert whole["data"] == pytest.approx(3 + 99 + 100)
    assert whole["image"] == pytest.approx(7 + 99 * 6 + 400)
    assert whole["test"] == pytest.approx(100)
    assert sum(whole[part] for part in PARTS) == pytest.approx(whole["total"])


@pytest.mark.parametrize(("ratio", "failed"), [(6.0, 0), (5.0, 1), (None, 1)])
def test_bars(ratio, failed, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = {"job": JOB.name, "second_ratio": 25.0}
    if ratio is not None:
        result["cold_ratio"] = ratio
    assert check([result]) == failed
    out = capsys.readouterr().out
    assert ("pass         eurosat CoCoOp: cold_ratio: 6.00" in out) == (failed == 0)
    assert check([]) == 2


@pytest.mark.slow
def test_quick(tmp_path):
    command = ["benchmarks/whole_job.py", "--quick", "--jobs", JOB.name, "--json"]
    path = tmp_path / "results.json"
    subprocess.run([sys.executable, *command, str(path)], cwd=ROOT, check=True, timeout=300)
    (result,) = json.loads(path.read_text())["results"]
    assert result["done"] == {"epochs": 5, "of": 100, "test_images": [210, 195]}
    assert result["cold"]["image"] > 0 and result["second"]["image"] == 0
    assert result["cold_ratio"] > 0 and result["plain"]["total"] > 0
