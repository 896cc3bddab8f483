"""Weights & Biases beside TensorBoard, by a stand-in for the package: what it is told, and when."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dassl.engine import wandb_writer
from dassl.utils import ConfigError
from explore.curves import _steps
from sweep.cli import main
from sweep.plan.run import Run
from sweep.work.execute import Job
from tests.runs import make_eurosat, run

PROJECT = ("TRAIN.WANDB.PROJECT", "birds", "OPTIM.MAX_EPOCH", "2", "DATASET.NUM_SHOTS", "4")


class FakeRun:
    def __init__(self, package: FakeWandb, **given: object) -> None:
        self.package, self.given = package, given
        self.history: list[dict] = []
        self.summary: dict = {}
        self.steps: dict[str, str] = {}
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str) -> None:
        self.steps[name] = step_metric

    def log(self, values: dict) -> None:
        random.random(), torch.rand(1)
        if self.package.fails_at == len(self.history):
            raise ConnectionError("the network is down")
        self.history.append(values)

    def finish(self, exit_code: int) -> None:
        time.sleep(self.package.slow)
        self.exit_code = exit_code


class FakeWandb(ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[FakeRun] = []
        self.fails_at: int | None = None  # the number of the call of `log`; -1: `init`
        self.slow = 0.0  # seconds that `finish` takes

    def init(self, **given: object) -> FakeRun:
        random.random(), torch.rand(1)
        if self.fails_at == -1:
            raise ConnectionError("api.wandb.ai cannot be reached")
        self.runs.append(FakeRun(self, **given))
        return self.runs[-1]


@pytest.fixture
def wandb(monkeypatch) -> FakeWandb:
    package = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory) -> tuple[float, bytes]:
    """Accuracy and learned numbers of a run that reports to nobody."""
    output = tmp_path_factory.mktemp("plain") / "out"
    return run(data, output, *PROJECT[2:]), learned(output)


def learned(output: Path) -> bytes:
    path = output / "prompt_learner/model.pth.tar-2"
    return torch.load(path, weights_only=True)["state_dict"]["ctx"].numpy().tobytes()


def test_it_gets_what_tensorboard_gets(wandb: FakeWandb, data: Path, plain: tuple, tmp_path: Path):
    output = tmp_path / "mine"
    accuracy = run(data, output, *PROJECT)
    assert (accuracy, learned(output)) == plain, "no number changes"
    (told,) = wandb.runs
    found: dict[str, dict[int, float]] = {}
    for values in told.history:
        (step,) = (values[key] for key in values if key.endswith("/step"))
        for tag, value in values.items():
            if not tag.endswith("/step"):
                found.setdefault(tag, {})[step] = value
    beside = _steps(output)
    assert found.keys() == beside.keys() >= {"train/loss", "train/acc", "train/lr", "test/accuracy"}
    for tag, values in found.items():
        assert values == pytest.approx(beside[tag])
    assert told.summary["test/accuracy"] == accuracy and told.summary["epoch"] == 2
    assert told.steps["train/*"] == "train/step" and told.exit_code == 0
    given = told.given
    assert (given["project"], given["name"], given["mode"]) == ("birds", "mine", None)
    assert given["config"]["OPTIM"]["MAX_EPOCH"] == 2 and json.dumps(given["config"])
    assert given["dir"] == str(output) and given["resume"] == "allow"


def test_a_resumed_run_goes_on_under_its_id(wandb: FakeWandb, data: Path, tmp_path: Path):
    run(data, tmp_path, *PROJECT, "OPTIM.MAX_EPOCH", "1")
    run(data, tmp_path, *PROJECT, resume=str(tmp_path))
    run(data, tmp_path, *PROJECT, overwrite=True)
    first, second, third = (one.given["id"] for one in wandb.runs)
    assert first == second != third


def test_an_evaluation_by_itself_is_a_run(wandb: FakeWandb, data: Path, tmp_path: Path):
    zero_shot = {"trainer": "ZeroshotCLIP", "eval_only": True}
    accuracy = run(data, tmp_path, *PROJECT[:2], "TRAIN.WANDB.MODE", "offline", **zero_shot)
    (told,) = wandb.runs
    assert told.summary["test/accuracy"] == accuracy
    assert (told.exit_code, told.given["mode"]) == (0, "offline")


@pytest.mark.parametrize("fails", ["at the start", "in between", "at the end"])
def test_whatever_fails_there_the_training_goes_on(
    fails: str, wandb: FakeWandb, data: Path, plain: tuple, tmp_path: Path, monkeypatch, capsys
):
    wandb.fails_at = {"at the start": -1, "in between": 1}.get(fails)
    wandb.slow = 0.4 if fails == "at the end" else 0.0
    monkeypatch.setattr(wandb_writer, "PATIENCE", 0.1)
    assert (run(data, tmp_path, *PROJECT), learned(tmp_path)) == plain
    said = capsys.readouterr().out
    assert said.count("Note: Weights & Biases gets nothing more of this run, which goes on: ") == 1
    assert {
        "at the start": "api.wandb.ai cannot be reached",
        "in between": "the network is down",
        "at the end": "it was not reached within 0 s",
    }[fails] in said


def test_a_training_that_fails_is_a_failed_run(wandb: FakeWandb, data: Path, tmp_path: Path):
    with pytest.raises(FloatingPointError):
        run(data, tmp_path, *PROJECT, "OPTIM.LR", "1e30", "OPTIM.WARMUP_EPOCH", "-1")
    assert wandb.runs[0].exit_code == 1


def test_a_missing_package_is_told_before_anything_is_done(data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(wandb_writer, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="wandb is not installed: pip install wandb"):
        run(data, tmp_path / "out", *PROJECT)
    flags = ["--datasets", "digits", "--output", str(tmp_path / "out"), "--wandb", "birds"]
    with pytest.raises(ConfigError, match="pip install wandb"):
        main(["run", "base2new", *flags, "--dry-run"])
    assert not (tmp_path / "out").exists()


def test_what_would_be_ignored(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"TRAIN.WANDB.NAME would be ignored without"):
        run(data, tmp_path, "TRAIN.WANDB.NAME", "mine")
    with pytest.raises(ConfigError, match="Did you mean 'offline'"):
        run(data, tmp_path, "TRAIN.WANDB.MODE", "ofline")


def test_a_sweep_groups_the_seeds_of_a_cell():
    told = []
    for seed in (1, 2):
        job = Job(
            Run("CoOp", "digits", "CoOp/tiny", 16, "base", seed), Path("out"), "data", wandb="x"
        )
        opts = job.wandb_opts
        told.append(dict(zip(opts[::2], opts[1::2])))
    groups = {one["TRAIN.WANDB.GROUP"] for one in told}
    assert len(groups) == 1 and groups.pop().startswith("digits/16shots/CoOp/tiny-")
    assert told[0]["TRAIN.WANDB.JOB_TYPE"] == "train_base"
    assert told[0]["TRAIN.WANDB.NAME"] != told[1]["TRAIN.WANDB.NAME"]
    assert Job(job.run, Path("out"), "data").wandb_opts == []
