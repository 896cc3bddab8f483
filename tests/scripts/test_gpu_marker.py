"""With a GPU, a plain `pytest` gives it to the tests marked `gpu`, and to no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE_GPU = """
import torch
allocated = {"allocation.all.allocated": 0}
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
torch.cuda.memory_stats = lambda: dict(allocated)
"""
TESTS = """
import os, subprocess, sys
import pytest, torch
from fake_gpu import allocated

ASK = "import os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"

@pytest.fixture(scope="module")
def seen_by_a_fixture():
    return torch.cuda.is_available()

def test_unmarked(seen_by_a_fixture):
    assert (torch.cuda.is_available(), torch.cuda.device_count()) == (False, 0)
    assert not seen_by_a_fixture
    child = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    assert child.stdout.strip() == "''"

@pytest.mark.gpu
def test_marked():
    assert torch.cuda.is_available()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    allocated["allocation.all.allocated"] += 1

@pytest.mark.gpu
def test_marked_and_on_the_cpu():
    assert torch.cuda.is_available()
"""


@pytest.mark.slow
def test_who_gets_the_gpu(tmp_path: Path):
    (tmp_path / "fake_gpu.py").write_text(FAKE_GPU)
    (tmp_path / "test_here.py").write_text(TESTS)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-m", "pytest", "-rf", "-p", "fake_gpu", "-p", "tests.conftest"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "test_here.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "0"},
        capture_output=True,
        text=True,
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "marked `gpu`, but nothing was computed on one" in done.stdout
