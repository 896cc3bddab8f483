"""The loops over batches: what is drawn in which order, and the time that the log says is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.sampler import RandomSampler

from dassl.config import get_cfg_default
from dassl.data import workers
from dassl.data.workers import Loader
from dassl.engine import TrainerX, TrainerXU, trainer
from tests.data.helpers_loading import seed_all


class RandomViews(Dataset):
    """An item is its index and a number drawn for it."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(torch.rand(()))


class Loops:
    """A trainer without data or model of its own, which keeps the batches that it is given."""

    def build_data_loader(self) -> None:
        self.num_classes, self.lab2cname = 1, {0: "a"}

    def build_model(self) -> None:
        model = torch.nn.Linear(1, 1)
        self.register_model("model", model, torch.optim.SGD(model.parameters(), lr=0.5))
        self.seen: list[Any] = []

    def forward_backward(self, *batches: Any) -> dict[str, float]:
        self.seen.append(batches)
        return {"loss": 1.25}


class LoopX(Loops, TrainerX):
    pass


class LoopXU(Loops, TrainerXU):
    pass


# --- the batches of TrainerXU ---------------------------------------------------------------------


def plain_loop(x: DataLoader, u: DataLoader, num_batches: int) -> Iterator[tuple]:
    """An epoch as the public engine runs it: both passes start before the first batch."""
    passes, loaders = [iter(x), iter(u)], [x, u]
    for _ in range(num_batches):
        pair = []
        for k in range(2):
            try:
                pair.append(next(passes[k]))
            except StopIteration:
                passes[k] = iter(loaders[k])
                pair.append(next(passes[k]))
        yield tuple(pair)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "num_batches"), [("train_x", 5), ("train_u", 2), ("smaller_one", 2)]
)
@pytest.mark.parametrize("n_workers", [0, 2])
def test_labelled_and_unlabelled_batches(monkeypatch, count, num_batches, n_workers):
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    cfg = get_cfg_default()
    cfg.TRAIN.COUNT_ITER = count
    looped = LoopXU(cfg)
    sets = RandomViews(10), RandomViews(5)
    looped.train_loader_x, looped.train_loader_u = (
        Loader(s, 2, RandomSampler(s), n_workers, drop_last=True, pin_memory=False) for s in sets
    )
    plain = [DataLoader(s, 2, shuffle=True, num_workers=n_workers, drop_last=True) for s in sets]
    seed_all(1)
    for _ in range(3):
        looped.run_epoch()
    drawn = torch.rand(1)
    seed_all(1)
    expected = [pair for _ in range(3) for pair in plain_loop(*plain, num_batches)]
    assert torch.equal(drawn, torch.rand(1))
    assert len(looped.seen) == len(expected) == 3 * num_batches
    for got, wanted in zip(looped.seen, expected):
        for a, b in zip(got, wanted):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


# --- the log line ---------------------------------------------------------------------------------


def test_eta_counts_this_epoch_and_all_later_ones(monkeypatch, capsys):
    """Half a second of loading and one and a half of training a batch: two seconds each."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(time=lambda: clock.now))

    def load() -> None:
        clock.now += 0.5

    def step(_: None) -> dict[str, float]:
        clock.now += 1.5
        return {"loss": 1.25}

    cfg = get_cfg_default()
    cfg.TRAIN.PRINT_FREQ = 2
    looped = LoopX(cfg)
    looped.max_epoch = 3
    capsys.readouterr()
    for looped.epoch in range(3):
        looped._run_batches(5, load, step)
    lines = capsys.readouterr().out.splitlines()
    etas = [int(re.fullmatch(r".* eta 0:00:(\d\d)", line)[1]) for line in lines]
    # After batch 2 and 4 of 5: two seconds for each of the 3 and 1 left, and of 10, 5 and 0 later.
    assert etas == [2 * (3 + 10), 2 * (1 + 10), 2 * (3 + 5), 2 * (1 + 5), 2 * 3, 2 * 1]
    assert lines[0] == (
        "epoch [1/3] batch [2/5] time 2.000 (2.000) data 0.500 (0.500) "
        "loss 1.2500 (1.2500) lr 5.0000e-01 eta 0:00:26"
    )


def test_eta_goes_by_the_average_of_the_epoch(monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0, steps=iter([100.0, 20.0]))
    monkeypatch.setattr(trainer, "time", SimpleNamespace(time=lambda: clock.now))

    def step(_: None) -> None:
        clock.now += next(clock.steps)

    cfg = get_cfg_default()
    cfg.TRAIN.PRINT_FREQ = 2
    looped = LoopX(cfg)
    looped.max_epoch = 61
    capsys.readouterr()
    looped._run_batches(2, lambda: None, step)
    assert capsys.readouterr().out.strip().endswith(" eta 2:00:00")  # 60 s for each of 120
