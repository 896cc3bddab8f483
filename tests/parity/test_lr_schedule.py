"""Learning rates and optimiser options against the golden numbers (golden/README.md)."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest
import torch

from dassl.optim import build_lr_scheduler, build_optimizer
from tests.optim.golden_schedules import (
    CASES,
    GOLDEN,
    GOLDEN_DIR,
    build,
    case_node,
    optim_node,
    rates,
    tiny_model,
    train_epoch,
)

LOG_CASE = "sgd_lr0.0025_cosine_constwarm1_ep100"  # the settings of the public training logs


def test_number_of_cases() -> None:
    assert len(CASES) == 32


@pytest.mark.parametrize("name", CASES)
def test_rates(name: str) -> None:
    case = CASES[name]
    optimizer, scheduler = build(case_node(name))
    assert type(optimizer).__name__ == case["optimizer_class"]
    assert type(scheduler).__name__ == case["scheduler_class"]
    used, after = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(case["max_epoch"]):
            used.append(rates(optimizer))
            train_epoch(optimizer, scheduler)
            after.append(rates(optimizer))
            assert scheduler.get_last_lr() == [g["lr"] for g in optimizer.param_groups]
    np.testing.assert_allclose(used, case["lr_used_in_epoch"], rtol=1e-9, atol=0)
    np.testing.assert_allclose(after, case["lr_after_epoch_update"], rtol=1e-9, atol=0)
    if case["logged_on_last_batch"] is not None:
        first_group = np.asarray(after).reshape(len(after), -1)[:, 0]
        assert [f"{lr:.4e}" for lr in first_group] == case["logged_on_last_batch"]


@pytest.mark.parametrize("name", CASES)
def test_param_group_options(name: str) -> None:
    optimizer, _ = build(case_node(name))
    group = optimizer.param_groups[0]
    for key, expected in CASES[name]["param_group_options"].items():
        given = list(group[key]) if isinstance(group[key], tuple) else group[key]
        assert given == expected, key


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("single_step_non_int", {"LR_SCHEDULER": "single_step", "STEPSIZE": (2.5,)}),
        ("multi_step_int", {"LR_SCHEDULER": "multi_step", "STEPSIZE": 7}),
        ("unknown_scheduler", {"LR_SCHEDULER": "cosin"}),
        ("unknown_warmup_type", {"WARMUP_EPOCH": 1, "WARMUP_TYPE": "constnat"}),
    ],
)
def test_schedule_error_types(case: str, settings: dict) -> None:
    expected = {"TypeError": TypeError, "ValueError": ValueError}[GOLDEN["error_types"][case]]
    optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.1)
    with pytest.raises(expected, match=r"OPTIM\."):
        build_lr_scheduler(optimizer, optim_node(**settings))


def test_optimizer_error_type() -> None:
    assert GOLDEN["error_types"]["unknown_optimizer"] == "ValueError"
    with pytest.raises(ValueError, match=r"OPTIM\.NAME"):
        build_optimizer(tiny_model(), optim_node(NAME="sdg"))


def logged_rates() -> dict[int, str]:
    """The rate as printed on the last batch of each epoch, epochs counted from 1."""
    optimizer, scheduler = build(case_node(LOG_CASE))
    printed = {}
    for epoch in range(1, CASES[LOG_CASE]["max_epoch"] + 1):
        train_epoch(optimizer, scheduler)
        printed[epoch] = f"{rates(optimizer):.4e}"
    return printed


def test_public_training_log() -> None:
    column = {k: v for k, v in GOLDEN["reference_log_lr_column"].items() if k != "_about"}
    printed = logged_rates()
    assert {epoch: printed[int(epoch)] for epoch in column} == column


def test_seed_notebook_log() -> None:
    prefix = "lr_logged_at_epoch_"
    with (GOLDEN_DIR / "seed_notebook_eurosat.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"].startswith(prefix)]
    expected = {int(row["metric"].removeprefix(prefix)): row["value"] for row in rows}
    assert len(expected) == 9
    printed = logged_rates()
    assert {epoch: printed[epoch] for epoch in expected} == expected
