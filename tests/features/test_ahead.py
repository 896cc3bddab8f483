"""Training on features of views encoded ahead, against training on images batch by batch."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dassl.data import build_data_loader, workers
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import DataError, load_checkpoint
from dassl.utils.random_state import random_state, random_state_kept
from features.ahead import EncodedAhead
from tests.data.helpers_loading import make_cfg, make_items, seed_all
from tests.parity import test_training
from tests.runs import make_eurosat, run
from trainers.clip_trainer import CLIPTrainer
from trainers.cocoop import CoCoOp
from trainers.coop import CoOp

FEW = ("DATASET.NUM_SHOTS", "4")
OFF = ("MODEL.FEATURES.AHEAD_MB", "0", "MODEL.FEATURES.STORE_MB", "0")
METHODS = {
    "CoOp": {"trainer": "CoOp", "recipe": "CoOp/vit_b16_ctxv1", "train_batch_size": 8},
    "CoCoOp": {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture
def history(monkeypatch) -> list:
    """Losses of all steps, and whether they saw "img" or "features"."""
    steps: list[tuple[float, str]] = []
    for trainer in (CoOp, CoCoOp):
        plain = trainer.forward_backward

        def noted(self, batch: dict, plain=plain) -> dict[str, float]:
            summary = plain(self, batch)
            (kind,) = {"img", "features"} & batch.keys()
            steps.append((float(summary["loss"]), kind))
            return summary

        monkeypatch.setattr(trainer, "forward_backward", noted)
    return steps


def generator_states() -> tuple:
    """The states of Python's, numpy's and torch's generators; they compare by value."""
    state = random_state()
    kind, keys, *rest = state["numpy"]
    return state["python"], (kind, tuple(keys.tolist()), *rest), tuple(state["torch"].tolist())


def train(history: list, *args: Any, **kwargs: Any) -> tuple[list[float], set[str], tuple]:
    """Runs; returns losses, what the steps saw, and the generators afterwards."""
    history.clear()
    run(*args, **kwargs)
    return [loss for loss, _ in history], {kind for _, kind in history}, generator_states()


def assert_alike(got: tuple, expected: tuple) -> None:
    np.testing.assert_allclose(got[0], expected[0], rtol=2e-4)
    assert got[2] == expected[2], "the random numbers moved"
    assert (got[1], expected[1]) == ({"features"}, {"img"})


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", ["0", "2"])
@pytest.mark.parametrize("method", METHODS)
def test_same_draws_and_losses(data, tmp_path, history, monkeypatch, method, n_workers):
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    opts = (*FEW, "DATALOADER.NUM_WORKERS", n_workers)
    flags = {**METHODS[method], "epoch": 3}
    expected = train(history, data, tmp_path / "plain", *opts, *OFF, **flags)
    got = train(history, data, tmp_path / "ahead", *opts, **flags)
    assert_alike(got, expected)
    ends = [
        load_checkpoint(str(tmp_path / name / "prompt_learner/model.pth.tar-3"))["state_dict"]
        for name in ("plain", "ahead")
    ]
    for key in ends[0]:
        torch.testing.assert_close(ends[1][key], ends[0][key], rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", ["0", "2"])
def test_same_draws_with_an_evaluation_after_each_epoch(
    data, tmp_path, history, monkeypatch, n_workers
):
    """A test pass draws as well; with stored features it must draw as much."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    opts = ("TEST.FINAL_MODEL", "best_val", "DATALOADER.NUM_WORKERS", n_workers)
    opts += ("TRAIN.CHECKPOINT_FREQ", "2")
    flags = {**METHODS["CoOp"], "epoch": 3}
    expected = train(history, data, tmp_path / "plain", *FEW, *opts, *OFF, **flags)
    got = train(history, data, tmp_path / "ahead", *FEW, *opts, **flags)
    assert_alike(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", ["0", "2"])
def test_resumed_run(data, tmp_path, history, monkeypatch, n_workers):
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    opts = (*FEW, "TRAIN.CHECKPOINT_FREQ", "1", "DATALOADER.NUM_WORKERS", n_workers)
    results = []
    for name, off in (("ahead", ()), ("plain", OFF)):
        out, flags = tmp_path / name, METHODS["CoOp"]
        train(history, data, out, *opts, *off, epoch=2, **flags)
        for checkpoint in out.glob("prompt_learner/*-2"):
            checkpoint.rename(checkpoint.with_name("last"))
        (out / "prompt_learner/checkpoint").write_text("model.pth.tar-1\n")
        results.append(train(history, data, out, *opts, *off, epoch=3, resume=str(out), **flags))
    assert_alike(*results)


@pytest.mark.slow
def test_generators_at_the_end_of_each_epoch(data, tmp_path, monkeypatch):
    """What is saved with a checkpoint is the state in which the plain path would be."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    plain = CoOp.after_epoch
    seen: list[tuple] = []
    monkeypatch.setattr(
        CoOp, "after_epoch", lambda self: (seen.append(generator_states()), plain(self))
    )
    for n_workers in ("0", "2"):
        for name, off in (("ahead", ()), ("plain", OFF)):
            out = tmp_path / f"{name}{n_workers}"
            opts = (*FEW, *off, "DATALOADER.NUM_WORKERS", n_workers)
            run(data, out, *opts, epoch=3, **METHODS["CoOp"])
        assert seen[:3] == seen[3:]
        assert len(set(seen)) == 3
        seen.clear()


@pytest.mark.parametrize("key", ["none", "subclass", "trained image side"])
def test_others_get_images(data, tmp_path, history, monkeypatch, key):
    """A subclass that does not say that it may, and a trainer that learns on the image side."""
    name = "CoOp"
    if key == "subclass":

        @TRAINER_REGISTRY.register(force=True)
        class Mine(CoOp):
            pass

        name = "Mine"
    elif key == "trained image side":
        plain = CoOp.build_model

        def build_model(self) -> None:
            plain(self)
            self.model.image_encoder.conv1.weight.requires_grad_(True)

        monkeypatch.setattr(CoOp, "build_model", build_model)
    kinds = train(history, data, tmp_path, *FEW, epoch=1, trainer=name)[1]
    assert kinds == ({"features"} if key == "none" else {"img"})


@pytest.mark.parametrize(("trainer_class", "file", "name"), test_training.CASES)
def test_golden_training(trainer_class, file, name, capsys, history, monkeypatch):
    """The public implementation's twenty steps, on features."""
    monkeypatch.setattr(CLIPTrainer, "takes_features", lambda self: True)
    test_training.test_twenty_steps(trainer_class, file, name, capsys)
    assert [kind for _, kind in history] == ["features"] * 20


# --- the parts ------------------------------------------------------------------------------------


def mean_colour(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(2, 3))


@pytest.fixture
def items(tmp_path):
    return make_items(tmp_path / "images", 11)


def loader(cfg, items, sampler="RandomSampler"):
    tfm = build_transform(cfg)
    return build_data_loader(cfg, sampler, items, batch_size=2, n_ins=2, tfm=tfm)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["RandomSampler", "RandomClassSampler"])
@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("max_bytes", [1, 15_000, 2**20])
def test_any_window(items, monkeypatch, max_bytes, n_workers, sampler):
    """One batch at a time, some, all: three passes, one with other draws before it."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    cfg = make_cfg(n_workers)
    made = loader(cfg, items, sampler)
    seed_all(1)
    expected = []
    for number in range(3):
        if number == 2:
            torch.rand(1)
        expected += [(b["index"].tolist(), mean_colour(b["img"])) for b in islice(made, len(made))]
    state = generator_states()

    made = loader(cfg, items, sampler)
    ahead = EncodedAhead(made, mean_colour, torch.device("cpu"), max_bytes)
    seed_all(1)
    got = []
    for number in range(3):
        if number == 2:
            torch.rand(1)
        got += [(b["index"].tolist(), b["features"]) for b in ahead]
    assert generator_states() == state
    assert [index for index, _ in got] == [index for index, _ in expected]
    torch.testing.assert_close([f for _, f in got], [f for _, f in expected])


def test_error_in_a_view(items, monkeypatch):
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    ahead = EncodedAhead(loader(make_cfg(2, 0), items), mean_colour, torch.device("cpu"), 2**20)
    assert len(list(ahead)) == 5
    for item in items:
        Path(item.impath).write_bytes(b"no image")
    with pytest.raises(DataError):
        list(ahead)


def test_several_views_of_an_image_stay_images(items):
    cfg = make_cfg()
    cfg.DATALOADER.K_TRANSFORMS = 2
    ahead = EncodedAhead(loader(cfg, items), mean_colour, torch.device("cpu"), 2**20)
    for batch in ahead:
        assert [view.dim() for view in batch["img"]] == [4, 4]


def test_random_state_kept():
    seed_all(7)
    before = generator_states()
    with random_state_kept():
        drawn = [torch.rand(2).tolist(), np.random.rand(2).tolist()]
        assert generator_states() != before
    assert generator_states() == before
    assert [torch.rand(2).tolist(), np.random.rand(2).tolist()] == drawn


# --- fixed views ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", ["0", "2"])
def test_fixed_views_are_shared(data, tmp_path, history, encoded, n_workers):
    """By methods of other batch sizes; the second one encodes nothing."""
    cache = ("MODEL.FEATURES.FOLDER", str(tmp_path / "cache"))
    opts = (*FEW, "MODEL.FIXED_VIEWS", "True", "DATALOADER.NUM_WORKERS", n_workers, *cache)
    first = train(history, data, tmp_path / "a", *opts, epoch=2, **METHODS["CoCoOp"])
    n_train, n_test = 20, 15
    assert sum(encoded) == 2 * n_train + n_test and first[1] == {"features"}
    encoded.clear()
    train(history, data, tmp_path / "b", *opts, epoch=2, **METHODS["CoOp"])
    again = train(history, data, tmp_path / "c", *opts, epoch=2, **METHODS["CoCoOp"])
    assert not encoded
    assert again[0] == first[0]
    opts += ("MODEL.FEATURES.STORE_MB", "0")  # the same views, not kept
    unkept = train(history, data, tmp_path / "d", *opts, epoch=2, **METHODS["CoCoOp"])
    np.testing.assert_allclose(unkept[0], first[0], rtol=1e-4)
    assert sum(encoded) == 2 * n_train + n_test


def test_fixed_views_differ_by_seed_and_epoch(items):
    from features.views import FixedViews

    def features(seed: int, epoch: int) -> torch.Tensor:
        views = FixedViews(
            loader(make_cfg(), items), seed, mean_colour, torch.device("cpu"), None, None
        )
        state = generator_states()
        out = views._features(epoch)
        assert generator_states() == state
        return out

    assert torch.equal(features(1, 0), features(1, 0))
    assert not torch.isclose(features(1, 0), features(1, 1)).any()
    assert not torch.isclose(features(1, 0), features(2, 0)).any()


def test_fixed_views_and_a_trainer_that_takes_images(data, tmp_path, history, capsys):
    @TRAINER_REGISTRY.register(force=True)
    class Mine(CoOp):
        pass

    opts = (*FEW, "MODEL.FIXED_VIEWS", "True")
    assert train(history, data, tmp_path, *opts, trainer="Mine", epoch=2)[1] == {"img"}
    assert capsys.readouterr().out.count("Mine takes images") == 1
