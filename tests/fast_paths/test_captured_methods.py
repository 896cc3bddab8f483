"""Whole trainings by every method whose steps are replayed, beside plain ones.

On a GPU with CUDA graphs; on a CPU with a stand-in that does the recorded work again.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor

import trainers
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.step_graph import StepGraph
from dassl.utils import load_checkpoint
from tests.fast_paths.test_captured_step import TOLERANCE, fake  # noqa: F401  # a fixture
from tests.golden_recipes import assert_close
from tests.prompts.runs import METHODS, train
from tests.runs import make_eurosat
from trainers import prompt_trainer
from trainers.prompt_trainer import PromptTrainer

pytestmark = pytest.mark.slow  # two trainings a method


def capturable(method: str) -> bool:
    """Whether a method says so, or the one that it stands on."""
    settings = METHODS[method]
    name = method.partition(",")[0]
    if name == "DePT":
        name = settings[1] if "TRAINER.DEPT.BASE" in settings else "CoOp"
    promise = TRAINER_REGISTRY.get(name).promise()
    return promise is not None and promise.capturable_step


CAPTURED = [method for method in METHODS if capturable(method)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture
def graphs(
    device: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> list[StepGraph]:
    """The step graphs of the trainings that follow."""
    if device == "cpu":
        request.getfixturevalue("fake")
    made, make = [], prompt_trainer.StepGraph

    def noted(*args: object, **kwargs: object) -> StepGraph:
        made.append(make(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(prompt_trainer, "StepGraph", noted)
    return made


def learned(folder: Path) -> dict[str, Tensor]:
    """Returns what the checkpoints of the last epoch hold, by folder and name."""
    return {
        f"{path.parent.name}: {name}": value
        for path in sorted(folder.glob("*/model.pth.tar-2"))
        for name, value in load_checkpoint(str(path))["state_dict"].items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }


def everywhere(precision: str) -> list[str]:
    """Returns options that set the precision of all methods."""
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    nodes = [node for node, settings in cfg.TRAINER.items() if "PREC" in (settings or ())]
    return [word for node in nodes for word in (f"TRAINER.{node}.PREC", precision)]


@pytest.mark.parametrize("method", CAPTURED)
@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "fp32"), *(pytest.param("cuda", p, marks=pytest.mark.gpu) for p in TOLERANCE)],
)
def test_replayed_training_follows_plain_training(
    method: str,
    device: str,
    precision: str,
    graphs,
    data: Path,
    tmp_path: Path,
    monkeypatch,
    caplog,
):
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**8)  # so that none is skipped
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    options = ("USE_CUDA", str(device == "cuda"), *everywhere(precision))
    for captured in ("True", "False"):
        train(data, tmp_path / captured, method, *options, "MODEL.CUDA_GRAPH", captured, epoch=2)
    assert graphs and all(graph.replays() for graph in graphs)  # ProMetaR has two
    assert not [r for r in caplog.records if "without a CUDA graph" in r.getMessage()]
    replayed, plain = learned(tmp_path / "True"), learned(tmp_path / "False")
    assert replayed.keys() == plain.keys() and len(plain) > 0
    for name, value in plain.items():
        # ProMetaR leaves out images that a plain step on a CPU does without.
        if device == "cpu" and method != "ProMetaR":
            assert torch.equal(replayed[name], value), name
        else:
            assert_close(replayed[name], value, TOLERANCE[precision], name)


def test_none_is_forgotten():
    """Every trainer that promises is among the methods."""
    names = TRAINER_REGISTRY.registered_names()
    classes = [TRAINER_REGISTRY.get(n) for n in names]
    promising = {
        name
        for name, cls in zip(names, classes)
        if cls.__module__.startswith("trainers.")
        and issubclass(cls, PromptTrainer)
        and (promise := cls.promise()) is not None
        and promise.capturable_step
    }
    assert promising <= {method.partition(",")[0] for method in CAPTURED}
