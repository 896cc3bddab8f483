"""Trainers whose steps are replayed, against plain steps.

On a GPU with CUDA graphs; on a CPU with a stand-in that does the recorded work again.
"""

from __future__ import annotations

import functools
import json
import logging
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.text_encoding import Bench, Case
from dassl.engine.step_graph import StepGraph
from dassl.utils import load_checkpoint
from tests.e2e.test_exact_resume import StoppedError, stop_in_epoch
from tests.engine.test_step_graph import FakeGraph
from tests.golden_recipes import assert_close, fed_by, image_size, make_cfg, training_batches
from tests.runs import make_eurosat, run
from trainers import prompt_trainer
from trainers.clip_trainer import frozen_clip
from trainers.cocoop import CoCoOp
from trainers.coop import CoOp
from trainers.prompt_trainer import PromptTrainer

ROOT = Path(__file__).resolve().parents[2]
METHODS = pytest.mark.parametrize("trainer_class", [CoOp, CoCoOp])
NAMES = ["abbey", "golf course", "golf ball", "annual crop land", "river"]
TOLERANCE = {"fp32": 2e-3, "fp16": 5e-2, "amp": 5e-2}
on_gpu = pytest.mark.gpu


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeGraph]:
    """Steps are replayed on the CPU."""

    class Fake(FakeGraph):
        pass

    monkeypatch.setattr(prompt_trainer, "StepGraph", functools.partial(StepGraph, make_graph=Fake))
    monkeypatch.setattr(
        PromptTrainer, "captures_step", lambda self: self.cfg.MODEL.CUDA_GRAPH is True
    )
    return Fake


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, or its twin: a CPU that replays, and computes in half precision, as a GPU does."""
    if request.param == "cpu":
        request.getfixturevalue("fake")
        monkeypatch.setattr(prompt_trainer, "resolve_precision", lambda prec, device, key: prec)


def build(trainer_class: type, batches: list, **options: Any) -> PromptTrainer:
    """Builds a trainer of a golden model, on `batches`; options have "_" for "."."""

    @frozen_clip(image_features=True, capturable_step=True)
    class Fed(fed_by(trainer_class, NAMES, batches)):
        pass

    settings = {"OPTIM.NAME": "sgd", "OPTIM.LR": 0.01, "OPTIM.MAX_EPOCH": 3, **options}
    torch.manual_seed(0)
    return Fed(make_cfg("vit_a", settings))


def make_batches(*sizes: int) -> list[dict[str, Tensor]]:
    stream = training_batches(len(NAMES), image_size("vit_a"), max(sizes), 3)
    batches = list(islice(stream, len(sizes)))
    return [{k: v[:n] for k, v in batch.items()} for batch, n in zip(batches, sizes)]


def train(trainer: PromptTrainer, epochs: int = 2) -> list[Tensor]:
    """Returns losses, logits after each epoch, and learned parameters."""
    seen = []
    plain = trainer.forward_backward

    def noted(batch: dict) -> dict:
        summary = plain(batch)
        seen.append(summary["loss"].cpu().clone())
        return summary

    trainer.forward_backward = noted
    image = trainer.train_loader_x[0]["img"].to(trainer.device)
    for trainer.epoch in range(epochs):
        trainer.run_epoch()
        trainer.set_model_mode("eval")
        with torch.no_grad():
            seen.append(trainer.model_inference(image).cpu())
    return [*seen, *(p.detach().cpu() for p in trainer.model.prompt_learner.parameters())]


# --- captured against plain -----------------------------------------------------------------------


@pytest.mark.slow
@METHODS
@pytest.mark.parametrize("chunk", [0, 12])
def test_replayed_training_equals_plain_training(fake, trainer_class, chunk):
    results = []
    for captured in (True, False):
        batches = make_batches(4, 4, 4, 4, 3)
        options = {"MODEL.CUDA_GRAPH": captured, "MODEL.TEXT_CHUNK": chunk}
        results.append(train(build(trainer_class, batches, **options), epochs=4))
    for ours, plain in zip(*results, strict=True):
        assert torch.equal(ours, plain)
    assert (fake.made, fake.replays) == (2, 15 + 3)


@METHODS
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("size", [1, 7])
def test_captured_training_follows_plain_training(graphs, trainer_class, precision, size, caplog):
    results = []
    key = f"TRAINER.{trainer_class.config_node}.PREC"
    for captured in (True, False):
        batches = make_batches(*[size + 1] * 4, size)
        options = {"USE_CUDA": True, key: precision, "MODEL.CUDA_GRAPH": captured}
        trainer = build(trainer_class, batches, **options)
        results.append(train(trainer, epochs=4))
        if captured:
            (graph,) = trainer._step_graphs.values()
            assert graph.replays()
    for ours, plain in zip(*results, strict=True):
        assert_close(ours, plain, TOLERANCE[precision])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.slow
def test_captured_steps_in_chunks(graphs):
    """Chunks that the backward pass computes again can be recorded, too."""
    results = []
    for captured in (True, False):
        options = {"USE_CUDA": True, "MODEL.CUDA_GRAPH": captured, "MODEL.TEXT_CHUNK": 12}
        trainer = build(CoCoOp, make_batches(*[4] * 6), **options)
        results.append(train(trainer))
        if captured:
            (graph,) = trainer._step_graphs.values()
            assert graph.replays()
    for ours, plain in zip(*results, strict=True):
        assert_close(ours, plain, TOLERANCE["fp32"])


@pytest.mark.slow
def test_whole_runs(data, tmp_path, fake):
    """Features encoded ahead, evaluations in between, checkpoints: the same, bit for bit."""
    opts = ("DATASET.NUM_SHOTS", "4", "TEST.FINAL_MODEL", "best_val")
    flags = {"epoch": 3, "train_batch_size": 4}
    results, states = [], []
    for captured in ("True", "False"):
        out = tmp_path / captured
        results.append(run(data, out, *opts, "MODEL.CUDA_GRAPH", captured, **flags))
        states.append(load_checkpoint(str(out / "prompt_learner/model.pth.tar-3"))["state_dict"])
    assert results[0] == results[1]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert fake.replays > 5
    digests = [
        json.loads((tmp_path / captured / "results.jsonl").read_text().splitlines()[-1])
        for captured in ("True", "False")
    ]
    assert digests[0]["config_digest"] == digests[1]["config_digest"]


@pytest.mark.slow
@METHODS
def test_resumed_training(graphs, data, tmp_path, monkeypatch, trainer_class):
    opts = ("DATASET.NUM_SHOTS", "4", "TRAIN.CHECKPOINT_FREQ", "2", "MODEL.FEATURES.STORE_MB", "0")
    opts += ("MODEL.CUDA_GRAPH", "True")
    name = trainer_class.__name__
    recipes = {"CoOp": "CoOp/vit_b16_ctxv1", "CoCoOp": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}
    flags = {"trainer": name, "recipe": recipes[name], "train_batch_size": 4, "epoch": 5}
    run(data, tmp_path / "whole", *opts, **flags)
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 3)
        with pytest.raises(StoppedError):
            run(data, tmp_path / "broken", *opts, **flags)
    run(data, tmp_path / "broken", *opts, resume=str(tmp_path / "broken"), **flags)
    whole, broken = (
        load_checkpoint(str(tmp_path / folder / "prompt_learner/model.pth.tar-5"))["state_dict"]
        for folder in ("whole", "broken")
    )
    for key in whole:
        assert_close(broken[key], whole[key], TOLERANCE["fp16"], key)


# --- who is captured ------------------------------------------------------------------------------


def test_where_steps_are_captured():
    (batch,) = make_batches(2)
    trainer = build(CoOp, [batch])
    trainer.device = torch.device("cuda")
    assert trainer.captures_step()
    trainer.cfg.MODEL.CUDA_GRAPH = False
    assert not trainer.captures_step(), "whoever says no is heard"
    trainer.cfg.MODEL.CUDA_GRAPH = True
    trainer.device = torch.device("cpu")
    assert not trainer.captures_step()


def test_no_cast_is_kept_for_a_step_that_is_captured(monkeypatch):
    """A graph would read the weights as they were cast while it was recorded."""
    trainer = build(CoOp, make_batches(2))
    trainer.precision = "amp"
    for captured in (False, True):
        monkeypatch.setattr(trainer, "captures_step", lambda captured=captured: captured)
        with trainer.autocast():
            assert torch.is_autocast_cache_enabled() == (not captured)


def test_the_statement_is_not_inherited():
    """A subclass may draw random numbers in its step: a graph would draw the same ones again."""

    class Mine(CoOp):
        pass

    trainer = fed_by(Mine, NAMES, make_batches(2))(make_cfg("vit_a", {"MODEL.CUDA_GRAPH": True}))
    trainer.device = torch.device("cuda")
    assert not trainer.captures_step()
    assert CoOp.promise().capturable_step
    assert CoCoOp.promise().capturable_step


@pytest.mark.slow
def test_a_graph_is_gone_after_training(fake, tmp_path, data):
    kept: list[PromptTrainer] = []

    class Kept(CoOp):
        pass

    plain = CoOp.after_train

    def after_train(self: CoOp) -> None:
        assert self._step_graphs
        plain(self)
        kept.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CoOp, "after_train", after_train)
        opts = ("DATASET.NUM_SHOTS", "2", "MODEL.CUDA_GRAPH", "True")
        run(data, tmp_path, *opts, epoch=1, train_batch_size=2)
    assert not kept[0]._step_graphs


# --- ImageNet's size ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet() -> Bench:
    names = json.loads((ROOT / "datasets/resources/classnames.json").read_text(encoding="utf-8"))
    return Bench(torch.device("cuda"), "fp16", names)


@on_gpu
def test_a_thousand_classes_train_in_less_than_4_gb(imagenet):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work = imagenet.works(Case("step", "CoCoOp", 1000))["ours"]
    for _ in range(3):
        work()
    assert work.graph.replays()
    assert torch.cuda.max_memory_reserved() < 4e9


@on_gpu
def test_a_thousand_classes_are_tested_at_batch_100(imagenet):
    logits = imagenet.works(Case("test", "CoCoOp", 1000, 100))["ours"]()[0]
    assert logits.shape == (100, 1000)
    assert logits.isfinite().all()
