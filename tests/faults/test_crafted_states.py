"""States and checkpoints that somebody made up, with a fitting checksum: one sentence each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from dassl.engine.progress import NEWEST
from dassl.engine.signals import TrainingStopped
from dassl.utils import UserError, load_checkpoint
from dassl.utils.sealed import save_sealed
from tests.runs import make_eurosat, run
from trainers.coop import CoOp

FEW = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped within its first epoch."""
    out = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingStopped):
        patch.setattr(CoOp, "check_loss", lambda self, loss: setattr(self._keeper.signals, "asked", 15))  # fmt: skip  # noqa: E501
        run(data, out, *FEW, epoch=2)
    return out


def put(state: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split("/")
    for name in way:
        state = state[name]
    if value is KeyError:
        del state[last]
    else:
        state[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((name, KeyError) for name in ("models", "place", "progress", "files", "made_by")),
        *((name, 3) for name in ("models", "place", "progress", "made_by/settings")),
        *(("models/prompt_learner", value) for value in (KeyError, None, {})),
        ("models/prompt_learner/state_dict", {"ctx": torch.ones(2)}),
        ("models/prompt_learner/state_dict/ctx", torch.full((4, 64), torch.nan)),
        ("models/prompt_learner/optimizer", {"state": 1}),
        ("models/prompt_learner/scheduler", {"last_epoch": "x"}),
        *(("place/batch", value) for value in (10**9, -1, "x")),
        *(("place/epoch", value) for value in (-1, 10**9, "x", None)),
        *(("place/random", value) for value in (None, {}, {"python": 1})),
        ("place/random/python", (3, (1, 2), None)),
        ("place/random/torch", torch.ones(2)),
        ("place/epoch_random", None),
        ("place/losses", {"loss": [1.0]}),
        ("place/more", 1),
        *(("files/log.txt", value) for value in (-5, "x", None, 1.5)),
    ],
)
def test_state(data: Path, stopped: Path, tmp_path: Path, path: str, value: Any):
    state = copy.deepcopy(load_checkpoint(str(stopped / NEWEST)))
    put(state, path, value)
    save_sealed(state, tmp_path / NEWEST)
    with pytest.raises(UserError) as error:
        run(data, tmp_path, *FEW, epoch=2, resume=str(tmp_path))
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "content", [[], 3, {}, {"state_dict": {}}, {"epoch": 1}, {"state_dict": 1}]
)
def test_checkpoint(data: Path, tmp_path: Path, content: Any):
    folder = tmp_path / "model/prompt_learner"
    folder.mkdir(parents=True)
    torch.save(content, folder / "model.pth.tar-1")
    flags = {"eval_only": True, "model_dir": str(tmp_path / "model"), "load_epoch": 1}
    with pytest.raises(UserError):
        run(data, tmp_path / "x", *FEW, **flags)
    with pytest.raises(UserError):
        run(data, tmp_path / "x", *FEW, epoch=1, resume=str(tmp_path / "model"))


BOMB = "a: &a [1]\n" + "".join(
    f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefghijk", "bcdefghijkl")
)


@pytest.mark.parametrize("content", [BOMB, "[" * 100_000, "A: " + "1" * 5000, "A: !!python/x"])
def test_config(data: Path, tmp_path: Path, content: str, capsys):
    """Where nothing else is left of a run, its `config.yaml` says whether it is another one."""
    (tmp_path / "config.yaml").write_text(content)
    run(data, tmp_path, *FEW, "TEST.NO_TEST", "True", epoch=1, resume=str(tmp_path))
    assert "is not compared" in capsys.readouterr().out
