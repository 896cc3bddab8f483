"""A training that is stopped after any batch ends as one that is not, however batches are made."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY
from dassl.engine.signals import TrainingStopped
from dassl.utils import CheckpointError, load_checkpoint
from tests.runs import log_lines, make_eurosat, run
from trainers.coop import CoOp

FEW = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "TRAIN.PRINT_FREQ", "1")
SAMPLER = ("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "DATALOADER.TRAIN_X.N_INS", "2")
WAYS = {
    "ahead": (),
    "batch by batch": ("MODEL.FEATURES.AHEAD_MB", "0"),
    "workers": ("DATALOADER.NUM_WORKERS", "2"),
    "one process, three streams": ("DATALOADER.NUM_WORKERS", "3", "DATALOADER.PROCESSES", "1"),
    "fixed views": ("MODEL.FIXED_VIEWS", "True"),
    "classes": SAMPLER,
    "best": ("TEST.FINAL_MODEL", "best_val"),
    "adam": ("OPTIM.NAME", "adam"),
}
DRAWING = {"drawing steps": (), "drawing steps, workers": WAYS["workers"]}


@TRAINER_REGISTRY.register(force=True)
class DrawingCoOp(CoOp):
    """Takes images, and its steps draw random numbers as well."""

    def compute_loss(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        kept = (torch.rand(len(label)) > 0.3).float()
        losses = torch.nn.functional.cross_entropy(logits, label, reduction="none")
        return (losses * kept).sum() + 0 * logits.sum()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Sends a signal within a step, counted from 1."""
    plain, left = CoOp.forward_backward, [step]

    def forward_backward(self: CoOp, batch: dict) -> dict:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch)

    monkeypatch.setattr(CoOp, "forward_backward", forward_backward)


def ends(folder: Path) -> dict:
    content = load_checkpoint(str(folder / "prompt_learner/model.pth.tar-2"))
    return {k: content[k] for k in ("optimizer", "scheduler")} | {
        "ctx": content["state_dict"]["ctx"].numpy().tobytes(),
        "random": content["progress"]["random"]["torch"].numpy().tobytes(),
        "own": content["progress"]["own"],
    }


def same(one: dict, other: dict) -> bool:
    return repr(one) == repr(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "stops"),
    [(way, ((1, 4), (2, 3))[i % 2]) for i, way in enumerate([*WAYS, *DRAWING])],
    ids=[*WAYS, *DRAWING],
)
def test_any_batch(data: Path, tmp_path: Path, monkeypatch, way: str, stops: tuple[int, int]):
    """One stop within an epoch and one at an epoch's end, of two batches each."""
    opts = (*FEW, *(DRAWING if way in DRAWING else WAYS)[way])
    flags = {"trainer": "DrawingCoOp"} if way in DRAWING else {}
    expected = run(data, tmp_path / "whole", *opts, epoch=2, **flags)
    broken, done = tmp_path / "broken", 0
    for step in stops:
        again = {"resume": str(broken)} if done else {}
        with monkeypatch.context() as patch:
            stop_after(patch, step - done)
            with pytest.raises(TrainingStopped, match="resume"):
                run(data, broken, *opts, epoch=2, **flags, **again)
        assert (broken / "progress.pt").is_file()
        done = step
    assert run(data, broken, *opts, epoch=2, resume=str(broken), **flags) == expected
    assert same(ends(tmp_path / "whole"), ends(broken))
    assert not list(broken.glob("progress*"))


def test_it_is_said_what_is_left(data: Path, tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(TrainingStopped, match="stopped by SIGTERM in epoch 1 of 2") as stop:
            run(data, tmp_path, *FEW, epoch=2)
    assert str(tmp_path) in str(stop.value)
    assert any("stopped by SIGTERM" in line for line in log_lines(tmp_path))


def test_what_cannot_be_gone_on_with_says_so(data: Path, tmp_path: Path, monkeypatch):
    """Without a seed each start draws another sample: said before training, not after a stop."""
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(TrainingStopped, match=r"kept in .*, but cannot be gone on with: SEED"):
            run(data, tmp_path, *FEW, epoch=2, seed=-1)
    assert any("if this training is stopped, it cannot be" in line for line in log_lines(tmp_path))
    with pytest.raises(CheckpointError, match=r"few_shot\.digest\.train of the data was"):
        run(data, tmp_path, *FEW, epoch=2, seed=-1, resume=str(tmp_path))


def test_a_longer_training_leaves_the_shorter_ones_log_alone(data: Path, tmp_path: Path):
    run(data, tmp_path, *FEW, epoch=1)
    before = (tmp_path / "log.txt").read_text()
    run(data, tmp_path, *FEW, epoch=2, resume=str(tmp_path))
    assert (tmp_path / "log.txt").read_text() == before
