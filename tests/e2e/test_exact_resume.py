"""A training that was stopped and resumed ends with the numbers of one that was not."""

from pathlib import Path

import pytest
import torch

from dassl.engine import SimpleTrainer
from dassl.utils import load_checkpoint
from dassl.utils.results import read_records
from tests.runs import make_eurosat, run

FEW = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
COCOOP = {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}


class StoppedError(RuntimeError):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def stop_in_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ends the process' work at the start of an epoch, as a kill would."""

    def before_epoch(self: SimpleTrainer) -> None:
        if self.epoch == epoch:
            raise StoppedError

    monkeypatch.setattr(SimpleTrainer, "before_epoch", before_epoch)


@pytest.mark.parametrize(
    ("flags", "opts"),
    [
        ({}, ("DATALOADER.NUM_WORKERS", "0")),
        (COCOOP, ("DATALOADER.NUM_WORKERS", "2")),
        ({}, ("TEST.FINAL_MODEL", "best_val")),
    ],
    ids=["CoOp", "CoCoOp, workers", "best on validation"],
)
def test_same_numbers(data: Path, tmp_path: Path, monkeypatch, flags: dict, opts: tuple):
    opts = (*FEW, *opts, "TRAIN.CHECKPOINT_FREQ", "2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = run(data, whole, *opts, epoch=5, **flags)
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 3)
        with pytest.raises(StoppedError):
            run(data, broken, *opts, epoch=5, **flags)
    assert [p.name for p in broken.glob("progress*")] == ["progress.pt"]
    assert run(data, broken, *opts, epoch=5, resume=str(broken), **flags) == expected
    states = [
        load_checkpoint(str(folder / "prompt_learner/model.pth.tar-5"))
        for folder in (whole, broken)
    ]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    assert not list(broken.glob("progress*")), "it is deleted once the training is done"


def test_without_progress_a_kept_epoch_is_gone_on_from(data: Path, tmp_path: Path, monkeypatch):
    """Checkpoints of epochs that are kept hold the random state as well."""
    opts = (*FEW, "TRAIN.CHECKPOINT_FREQ", "2")
    expected = run(data, tmp_path / "whole", *opts, epoch=5)
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 3)
        with pytest.raises(StoppedError):
            run(data, broken, *opts, epoch=5)
    (broken / "progress.pt").unlink()
    assert run(data, broken, *opts, epoch=5, resume=str(broken)) == expected
    names = [folder / "prompt_learner/model.pth.tar-5" for folder in (tmp_path / "whole", broken)]
    one, other = (load_checkpoint(str(name))["state_dict"]["ctx"] for name in names)
    assert torch.equal(one, other)


def test_without_the_random_state_the_log_says_so(data: Path, tmp_path: Path, monkeypatch, capsys):
    """As with a checkpoint of another program."""
    opts = (*FEW, "TRAIN.CHECKPOINT_FREQ", "2")
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 3)
        with pytest.raises(StoppedError):
            run(data, tmp_path, *opts, epoch=4)
    (tmp_path / "progress.pt").unlink()
    path = tmp_path / "prompt_learner/model.pth.tar-2"
    content = load_checkpoint(str(path))
    del content["progress"], content["made_by"]
    torch.save(content, path)
    run(data, tmp_path, *opts, epoch=4, resume=str(tmp_path))
    assert "draws other numbers than one without a break" in capsys.readouterr().out
    (record,) = read_records(tmp_path / "results.jsonl")
    assert record["draws_differ"]
