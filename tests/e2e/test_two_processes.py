"""Two processes on one machine compute the same bits, with as many threads as they like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dassl.utils import load_checkpoint
from dassl.utils.results import read_records
from tests.runs import ROOT

RECIPES = {"CoOp": "CoOp/tiny", "CoCoOp": "CoCoOp/tiny"}


def train_in_a_process(trainer: str, root: Path, output: Path) -> tuple[dict, dict]:
    """Returns what was learned, and the record of the test."""
    command = [sys.executable, "train.py", "--root", str(root), "--trainer", trainer]
    command += ["--dataset-config-file", "configs/datasets/digits.yaml", "--seed", "1"]
    command += ["--config-file", f"configs/trainers/{RECIPES[trainer]}.yaml", "--epoch", "1"]
    command += ["--output-dir", str(output), "DATASET.NUM_SHOTS", "4"]
    command += ["MODEL.FEATURES.FOLDER", str(output / "features")]  # nothing is handed on
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    (record,) = read_records(output / "results.jsonl")
    return load_checkpoint(str(output / "prompt_learner/model.pth.tar-1"))["state_dict"], record


@pytest.mark.slow
@pytest.mark.parametrize("trainer", RECIPES)
def test_two_processes_learn_the_same_bits(trainer: str, tmp_path: Path):
    (one, first), (other, second) = (
        train_in_a_process(trainer, tmp_path / "data", tmp_path / name) for name in ("a", "b")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert first["metrics"] == second["metrics"]
