"""The saved states of a training, of which one may be damaged at any time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dassl.engine.progress import BEFORE, NEWEST, read_progress
from dassl.utils import CheckpointError, load_checkpoint
from tests.runs import make_eurosat, run
from trainers.coop import CoOp

FEW = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
OFTEN = ("TRAIN.CHECKPOINT_SECONDS", "0.001")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class KilledError(RuntimeError):
    pass


def killed_at_writing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ends a run before the `number`-th state takes its place."""
    replace, left = os.replace, [number]

    def killing(source: object, target: object) -> None:
        if Path(str(target)).name == NEWEST and ".part" in str(source):
            left[0] -= 1
            if left[0] == 0:
                raise KilledError
        replace(source, target)

    monkeypatch.setattr(os, "replace", killing)


def test_a_damaged_state_never_takes_the_place_of_a_good_one(
    data: Path, tmp_path: Path, monkeypatch
):
    """The newest is damaged, the one before is gone on with, and the next writing is cut off."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = run(data, whole, *FEW, *OFTEN, epoch=3)
    for number, flags in ((4, {}), (1, {"resume": str(broken)})):
        with monkeypatch.context() as patch:
            killed_at_writing(patch, number)
            with pytest.raises(KilledError):
                run(data, broken, *FEW, *OFTEN, epoch=3, **flags)
        if not flags:
            os.replace(broken / BEFORE, broken / NEWEST)
            (broken / BEFORE).write_bytes((broken / NEWEST).read_bytes())
            (broken / NEWEST).write_bytes(b"damaged")
    assert read_progress(broken) is not None
    assert run(data, broken, *FEW, epoch=3, resume=str(broken)) == expected
    models = [folder / "prompt_learner/model.pth.tar-3" for folder in (whole, broken)]
    one, other = (load_checkpoint(str(path))["state_dict"]["ctx"] for path in models)
    assert torch.equal(one, other)


@pytest.mark.parametrize("damage", ["missing", "cut", "of another run"])
def test_a_lost_best_model_is_noticed_before_training(
    data: Path, tmp_path: Path, monkeypatch, damage: str
):
    """What a training on `best_val` ends with cannot be learned again from the middle."""
    out, best = tmp_path / "run", "prompt_learner/model-best.pth.tar"
    opts = (*FEW, *OFTEN, "TEST.FINAL_MODEL", "best_val")
    run(data, tmp_path / "other", *opts, epoch=1, seed=2)
    with monkeypatch.context() as patch:
        killed_at_writing(patch, 7)
        with pytest.raises(KilledError):
            run(data, out, *opts, epoch=3)
    content = (out / best).read_bytes()
    if damage == "missing":
        (out / best).unlink()
    else:
        other = (tmp_path / "other" / best).read_bytes()
        (out / best).write_bytes(other if "other" in damage else content[:-100])
    before = files(out)
    with pytest.raises(CheckpointError, match=best):
        run(data, out, *opts, epoch=3, resume=str(out))
    assert files(out) == before
    (out / best).write_bytes(content)
    run(data, out, *opts, epoch=3, resume=str(out))


@pytest.mark.parametrize("kind", ["state", "checkpoint"])
@pytest.mark.parametrize(("key", "value"), [("torch", "1.13.1"), ("device", "Tesla K80")])
def test_other_arithmetic_is_said(
    data: Path, tmp_path: Path, monkeypatch, capsys, kind: str, key: str, value: str
):
    """A training may go on with another torch or device, whose last digits may differ."""
    opts = (*FEW, "TRAIN.CHECKPOINT_FREQ", "1", "TEST.NO_TEST", "True")
    with monkeypatch.context() as patch:
        killed_at_writing(patch, 2)
        with pytest.raises(KilledError):
            run(data, tmp_path, *opts, epoch=2)
    os.replace(tmp_path / BEFORE, tmp_path / NEWEST)
    path = tmp_path / NEWEST
    if kind == "checkpoint":
        path.unlink()
        path = tmp_path / "prompt_learner/model.pth.tar-2"
    content = load_checkpoint(str(path))
    content["made_by"][key] = value
    torch.save(content, path)
    capsys.readouterr()
    run(data, tmp_path, *opts, epoch=2, resume=str(tmp_path))
    said = capsys.readouterr().out
    assert f"the run was begun with {key} {value} and goes on with" in said


def test_a_record_comes_after_all_that_goes_with_it(data: Path, tmp_path: Path, monkeypatch):
    """It says "finished", so a kill right after it may cost nothing, TensorBoard's numbers too,
    which a thread writes when it likes unless it is asked."""
    calls = []
    for name in ("write_scalar", "flush_writer"):
        monkeypatch.setattr(CoOp, name, lambda *args, name=name: calls.append(name))
    monkeypatch.setattr("dassl.engine.trainer.append_record", lambda *args: calls.append("record"))
    run(data, tmp_path, *FEW, epoch=1)
    at = calls.index("record")
    assert "write_scalar" in calls[:at]
    assert calls[at - 1] == "flush_writer"
