"""How `start_up` judges; and whether it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.start_up import RUNS, check

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("seconds", "failed"), [((5.0, 0.4, 0.9), 0), ((5.0, 0.4, 1.1), 1), ((0.4,), 1)]
)
def test_bar(seconds, failed, capsys):
    assert check([{"seconds": s} for s in seconds]) == failed
    assert ("pass" in capsys.readouterr().out) == (not failed)


@pytest.mark.slow
def test_quick(tmp_path):
    path = tmp_path / "results.json"
    command = ["benchmarks/start_up.py", "--quick", "--threads", "1", "--json", str(path)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, timeout=300)
    report = json.loads(path.read_text())
    first, *others = report["results"]
    assert len(others) == len(RUNS) - 1 and report["cpu"]
    assert first["parts"]["folding"] > 0 and first["parts"]["digest"] > 0
    for result in others:
        assert result["parts"]["folding"] == 0, "folded once"
        assert 0 < result["seconds"] == pytest.approx(sum(result["parts"].values()))
