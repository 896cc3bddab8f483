"""Two processes on one machine compute the same bits, with as many threads as they like."""

from __future__ import annotations

import json
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


TRAIN = """
import json, sys, train
for words in json.loads(sys.argv[1]):
    train.main(train.build_parser().parse_args(words))
"""


def train_in_a_process(root: Path, output: Path) -> dict[str, tuple[dict, dict]]:
    """Returns what each method has learned, and the record of its test."""
    commands = []
    for trainer, recipe in RECIPES.items():
        command = ["--root", str(root), "--trainer", trainer, "--seed", "1", "--epoch", "1"]
        command += ["--dataset-config-file", "configs/datasets/digits.yaml"]
        command += ["--config-file", f"configs/trainers/{recipe}.yaml"]
        command += ["--output-dir", str(output / trainer), "DATASET.NUM_SHOTS", "4"]
        command += ["MODEL.FEATURES.FOLDER", str(output / "features")]  # nothing is handed on
        commands.append(command)
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["OMP_WAIT_POLICY"] = "passive"  # threads that wait leave the cores to other tests
    code = [sys.executable, "-c", TRAIN, json.dumps(commands)]
    subprocess.run(code, cwd=ROOT, check=True, capture_output=True, env=environment)
    found = {}
    for trainer in RECIPES:
        (record,) = read_records(output / trainer / "results.jsonl")
        path = output / trainer / "prompt_learner/model.pth.tar-1"
        found[trainer] = load_checkpoint(str(path))["state_dict"], record
    return found


@pytest.mark.slow
def test_two_processes_learn_the_same_bits(tmp_path: Path):
    found = [train_in_a_process(tmp_path / "data", tmp_path / name) for name in ("a", "b")]
    for trainer in RECIPES:
        (one, first), (other, second) = (learned[trainer] for learned in found)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert first["metrics"] == second["metrics"]
