"""A finished run that is resumed says its accuracy, unless its record cannot be true any more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dassl.utils import CheckpointError, load_checkpoint
from dassl.utils.results import accuracy_of, read_records
from encoders.tiny import load_tiny_state_dict
from tests.runs import make_eurosat, run

FEW = ("DATASET.NUM_SHOTS", "2")
MODEL = "prompt_learner/model.pth.tar"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(load_tiny_state_dict(), path)
    return path


@pytest.fixture(scope="module")
def whole(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    opts = (*FEW, "TRAIN.CHECKPOINT_FREQ", "1")
    run(data, out, *opts, epoch=2, backbone_path=str(weights))
    return out


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def resume(data: Path, weights: Path, finished: Path) -> Callable[..., float]:
    def resume(**flags: Any) -> float:
        flags = {"epoch": 2, "backbone_path": str(weights), **flags}
        return run(data, finished, *FEW, resume=str(finished), **flags)

    return resume


def line(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **changes}).encode() + b"\n"


SAVED_AGAIN = {
    "with a mark": lambda content: b"\xef\xbb\xbf" + content,
    "by Windows": lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
    "without a last line end": lambda content: content.rstrip(),
    "with empty lines": lambda content: b"\n \n" + content + b"\n\n",
    "twice": lambda content: content + b"\xef\xbb\xbf" + content,
    "by a later version": line(version=9, more={"a": [1]}),
    "behind one that is none": lambda content: line(metrics={})(content) + b"{}\n[1]\n" + content,
}


@pytest.mark.parametrize("how", SAVED_AGAIN)
def test_a_record_that_was_saved_again(how: str, finished: Path, resume):
    path = finished / "results.jsonl"
    accuracy = next(read_records(path))["metrics"]["accuracy"]
    path.write_bytes(SAVED_AGAIN[how](path.read_bytes()))
    before = path.read_bytes()
    assert resume() == accuracy
    assert path.read_bytes() == before


IMPOSSIBLE = {
    "text": {"metrics": {"accuracy": "12.0"}},
    "below zero": {"metrics": {"accuracy": -3.0}},
    "above 100": {"metrics": {"accuracy": 100.5}},
    "NaN": {"metrics": {"accuracy": float("nan")}},
    "infinite": {"metrics": {"accuracy": float("inf")}},
    "other than its counts": {"correct": 1, "total": 200},
    "none": {"metrics": {}},
    "no metrics": {"metrics": None},
    "a list": {"metrics": [12.0]},
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_a_record_that_cannot_be_true(what: str, finished: Path, resume, capsys):
    """It is evaluated again, from the weights that were kept."""
    path = finished / "results.jsonl"
    accuracy = next(read_records(path))["metrics"]["accuracy"]
    path.write_bytes(line(**IMPOSSIBLE[what])(path.read_bytes()))
    assert resume() == accuracy
    assert f"{path} holds no accuracy that can be true" in capsys.readouterr().out
    assert accuracy_of(list(read_records(path))[-1]) == accuracy
    assert resume() == accuracy
    assert len(list(read_records(path))) == 2


@pytest.mark.slow
def test_weights_that_are_others_now(finished: Path, weights: Path, resume):
    state, kept = load_tiny_state_dict(), weights.read_bytes()
    try:
        torch.save({**state, "text_projection": state["text_projection"].flip(1)}, weights)
        with pytest.raises(CheckpointError, match=r"results\.jsonl.*the CLIP was"):
            resume()
    finally:
        weights.write_bytes(kept)
    resume()


def test_a_split_that_is_another_now(finished: Path, data: Path, resume):
    path = data / "eurosat/split_zhou_EuroSAT.json"
    kept = path.read_text()
    try:
        split = json.loads(kept)
        path.write_text(json.dumps({**split, "test": split["test"][:-1]}))
        with pytest.raises(CheckpointError, match=r"results\.jsonl.*split_digest"):
            resume()
    finally:
        path.write_text(kept)
    resume()


# --- checkpoints of another epoch than their name says --------------------------------------------


def test_a_renamed_checkpoint_is_not_evaluated(finished: Path, data: Path, tmp_path: Path, weights):
    shutil.copy(finished / f"{MODEL}-1", finished / f"{MODEL}-2")
    flags = {"eval_only": True, "model_dir": str(finished), "backbone_path": str(weights)}
    with pytest.raises(CheckpointError, match=r"tar-2 holds the weights after epoch 1"):
        run(data, tmp_path / "out", load_epoch=2, **flags)
    run(data, tmp_path / "out", load_epoch=1, **flags)


def test_more_epochs_than_are_asked_for(finished: Path, resume):
    """As of a checkpoint of another program, which does not say how many it was to train."""
    path = finished / f"{MODEL}-2"
    content = load_checkpoint(str(path))
    del content["made_by"], content["progress"]
    torch.save(content, path)
    (finished / "results.jsonl").unlink()
    with pytest.raises(CheckpointError, match="learned for 2 epochs, and OPTIM"):
        resume(epoch=1)
    assert not (finished / "results.jsonl").exists()
    resume()
