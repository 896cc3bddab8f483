"""A homework's notebook runs as it is printed, and learns what our own method learns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dassl.utils import load_checkpoint
from encoders.load import load_model
from encoders.tokens import tokenize
from tests.porting.conftest import record
from tests.runs import run

pytestmark = pytest.mark.slow
CELLS = Path(__file__).parent / "homework.py"
OUTPUTS = ("coop", "coop/new_classes", "cocoop", "cocoop/new_classes")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the homework ran: typed in, as into a notebook, so there is no file of its classes."""
    folder = tmp_path_factory.mktemp("homework")
    root = Path(__file__).parents[2]
    (folder / "configs").symlink_to(root / "configs")
    env = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-"],
        input=CELLS.read_text(encoding="utf-8"),
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_base_and_new_of_both_methods(project: Path):
    records = [record(project / "outputs" / name) for name in OUTPUTS]
    assert [one["classes"] for one in records] == ["base", "new"] * 2
    assert [one["trainer"] for one in records] == ["CoOp"] * 2 + ["CoCoOp"] * 2
    assert [one["precision"] for one in records] == ["fp16"] * 2 + ["fp32"] * 2
    base, new = records[2:]
    said = (project / "said.txt").read_text(encoding="utf-8")
    assert f"CoCoOp {new['metrics']['accuracy']:.1f}%" in said
    assert f"wrong images: {new['total'] - new['correct']}\n" in said
    assert base["metrics"]["accuracy"] > 40  # 20 by chance


def test_its_cocoop_is_ours(project: Path):
    """Same seed, same images, same numbers, though the two share no line."""
    ours = project / "ours"
    words = ("TRAINER.COCOOP.CTX_INIT", "a photo of a")
    opts = ("DATASET.NUM_SHOTS", "16", "TRAINER.COCOOP.PREC", "fp32", *words)
    common = {"trainer": "CoCoOp", "dataset": "digits", "recipe": "ProMetaR/tiny"}
    run(project / "data", ours, *opts, epoch=2, train_batch_size=4, **common)
    one, other = (
        load_checkpoint(str(folder / "prompt_learner/model.pth.tar-2"))["state_dict"]
        for folder in (ours, project / "outputs/cocoop")
    )
    assert one.keys() == other.keys()
    start = load_model("tiny", "fp32").token_embedding(tokenize(["a photo of a"]))[0, 1:5]
    assert (one["ctx"] - start).abs().max() > 1e-2, "it has learned"
    for name in ("ctx", "meta_net.linear1.weight", "meta_net.linear2.weight"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)
    assert record(ours)["correct"] == record(project / "outputs/cocoop")["correct"]
