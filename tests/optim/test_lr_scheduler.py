"""Checkpoints of the schedules: what is saved, what is restored, and the errors."""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dassl.optim import ConstantWarmupScheduler, build_lr_scheduler
from dassl.utils.errors import CheckpointError, ConfigError
from tests.optim.golden_schedules import (
    CASES,
    GOLDEN_DIR,
    build,
    case_node,
    optim_node,
    rates,
    tiny_model,
    train_epoch,
)

WARM_COSINE = "sgd_lr0.002_cosine_constwarm1_ep10"


def through_file(state: Any) -> Any:
    """Saves and loads as a run that is interrupted does."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def run(optimizer: torch.optim.Optimizer, scheduler: Any, n_epochs: int) -> list:
    values = []
    for _ in range(n_epochs):
        train_epoch(optimizer, scheduler)
        values.append(rates(optimizer))
    return values


def resumed_rates(name: str, stop: int, n_epochs: int, as_upstream: bool = False) -> list:
    """Rates after each of the epochs that follow a stop after `stop` epochs."""
    cfg = case_node(name)
    optimizer, scheduler = build(cfg)
    run(optimizer, scheduler, stop)
    if as_upstream:
        saved = through_file(optimizer.state_dict()), upstream_form(scheduler)
    else:
        saved = through_file((optimizer.state_dict(), scheduler.state_dict()))
    optimizer, scheduler = build(cfg)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.load_state_dict(saved[0])
        scheduler.load_state_dict(saved[1])
        return run(optimizer, scheduler, n_epochs)


def upstream_form(scheduler: Any) -> dict[str, Any]:
    """The public implementation's state: the successor as an object with its own optimizer."""
    state = scheduler.state_dict()
    if "successor" in state:
        foreign = torch.optim.SGD(tiny_model().parameters(), lr=123.0)
        state["successor"] = SimpleNamespace(optimizer=foreign, **state["successor"])
    return state


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_resume_at_every_epoch_continues_the_schedule(name: str) -> None:
    expected = CASES[name]["lr_after_epoch_update"]
    for stop in range(len(expected) + 1):
        # A few epochs show a wrong start; the first stop runs to the end.
        n_epochs = len(expected) - stop if stop == 0 else min(6, len(expected) - stop)
        resumed = resumed_rates(name, stop, n_epochs)
        np.testing.assert_allclose(resumed, expected[stop : stop + n_epochs], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case["max_epoch"] <= 20])
def test_resume_at_every_epoch_is_bit_exact_to_the_end(name: str) -> None:
    n_epochs = CASES[name]["max_epoch"]
    uninterrupted = run(*build(case_node(name)), n_epochs)
    for stop in range(n_epochs):
        assert resumed_rates(name, stop, n_epochs - stop) == uninterrupted[stop:]


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case["max_epoch"] <= 20])
def test_resume_from_the_public_form(name: str) -> None:
    expected = CASES[name]["lr_after_epoch_update"]
    for stop in range(len(expected)):
        resumed = resumed_rates(name, stop, len(expected) - stop, as_upstream=True)
        np.testing.assert_allclose(resumed, expected[stop:], rtol=1e-9, atol=0)


def test_public_form_leaves_the_foreign_optimizer_alone() -> None:
    optimizer, scheduler = build(case_node(WARM_COSINE))
    run(optimizer, scheduler, 3)
    state = upstream_form(scheduler)
    scheduler.load_state_dict(state)
    train_epoch(optimizer, scheduler)
    assert scheduler.successor.optimizer is optimizer
    assert state["successor"].optimizer.param_groups[0]["lr"] == 123.0


def test_state_has_the_public_keys_and_plain_values() -> None:
    details = json.loads((GOLDEN_DIR / "checkpoint.json").read_text(encoding="utf-8"))
    details = details["scheduler_details"]
    cfg = case_node(WARM_COSINE, MAX_EPOCH=3)
    optimizer, scheduler = build(cfg)
    run(optimizer, scheduler, 3)
    state = scheduler.state_dict()
    private = {"_is_initial", "_get_lr_called_within_step"}  # depend on the torch version
    assert set(details["keys"]) - private <= set(state)
    for key, value in details["values"].items():
        if key not in private:
            assert state[key] == pytest.approx(value, rel=1e-9), key
    for key, value in details["successor_values"].items():
        if key not in private:
            assert state["successor"][key] == pytest.approx(value, rel=1e-9), key
    assert json.loads(json.dumps(state))["successor"]["T_max"] == 3.0


@pytest.mark.parametrize("name", CASES)
def test_state_is_json(name: str) -> None:
    json.dumps(build(case_node(name))[1].state_dict())


@pytest.mark.parametrize("warmup", [0, 1])
def test_longer_run_keeps_its_own_settings(warmup: int, caplog: pytest.LogCaptureFixture) -> None:
    optimizer, scheduler = build(case_node(WARM_COSINE, WARMUP_EPOCH=warmup, MAX_EPOCH=10))
    run(optimizer, scheduler, 5)
    saved = through_file((optimizer.state_dict(), scheduler.state_dict()))
    longer, longer_scheduler = build(case_node(WARM_COSINE, WARMUP_EPOCH=warmup, MAX_EPOCH=20))
    longer.load_state_dict(saved[0])
    with caplog.at_level(logging.WARNING):
        longer_scheduler.load_state_dict(saved[1])
    assert "T_max 10.0 and goes on with 20.0" in caplog.text
    cosine = longer_scheduler.successor if warmup else longer_scheduler
    assert cosine.T_max == 20.0
    # From the saved rate on, torch's recursion with the new T_max.
    expected, position = saved[0]["param_groups"][0]["lr"], 5 - warmup
    for rate in run(longer, longer_scheduler, 10):
        now, then = (1 + math.cos(math.pi * (position + i) / 20) for i in (1, 0))
        expected, position = expected * now / then, position + 1
        assert rate == pytest.approx(expected, rel=1e-9)


def test_same_settings_load_silently(caplog: pytest.LogCaptureFixture) -> None:
    for name in CASES:
        _, scheduler = build(case_node(name))
        scheduler.load_state_dict(through_file(scheduler.state_dict()))
    assert caplog.text == ""


def test_state_is_not_shared() -> None:
    optimizer, scheduler = build(case_node(WARM_COSINE))
    state = scheduler.state_dict()
    before = copy.deepcopy(state)
    other_optimizer, other = build(case_node(WARM_COSINE))
    other.load_state_dict(state)
    other.base_lrs[0] = 99.0
    run(optimizer, scheduler, 4)
    run(other_optimizer, other, 2)
    assert state == before


def test_warmup_mismatch_is_explained() -> None:
    _, warm = build(case_node(WARM_COSINE))
    _, plain = build(case_node("sgd_cosine_nowarmup_ep10"))
    with pytest.raises(CheckpointError, match=r"without a warm-up.*OPTIM\.WARMUP_EPOCH"):
        warm.load_state_dict(plain.state_dict())
    with pytest.raises(CheckpointError, match="saved with a warm-up"):
        plain.load_state_dict(warm.state_dict())


def test_other_number_of_groups_is_explained() -> None:
    _, one = build(case_node(WARM_COSINE))
    _, two = build(case_node("sgd_staged_lr_cosine_constwarm1_ep6_two_groups"))
    with pytest.raises(CheckpointError, match="2 parameter groups, the optimizer has 1"):
        one.load_state_dict(two.state_dict())


def test_incomplete_state_is_explained() -> None:
    _, scheduler = build(case_node(WARM_COSINE))
    with pytest.raises(CheckpointError, match="lacks _step_count, _last_lr, base_lrs"):
        scheduler.load_state_dict({"last_epoch": 3})


def test_warmup_around_a_torch_scheduler() -> None:
    def make() -> tuple[torch.optim.Optimizer, ConstantWarmupScheduler]:
        optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.1)
        successor = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3)
        return optimizer, ConstantWarmupScheduler(optimizer, successor, 2, 1e-3)

    uninterrupted = run(*make(), 12)
    for stop in range(12):
        optimizer, scheduler = make()
        run(optimizer, scheduler, stop)
        saved = through_file((optimizer.state_dict(), scheduler.state_dict()))
        optimizer, scheduler = make()
        optimizer.load_state_dict(saved[0])
        scheduler.load_state_dict(saved[1])
        assert run(optimizer, scheduler, 12 - stop) == uninterrupted[stop:]


@pytest.mark.parametrize("given", [7, [3, 7], (3, 7)])
def test_single_step_takes_a_number_or_the_last_of_a_sequence(given: Any) -> None:
    _, scheduler = build(optim_node(STEPSIZE=given))
    assert scheduler.step_size == 7


@pytest.mark.parametrize("given", [0, -1, (-1,), [5, 0]])
def test_single_step_without_a_size_takes_the_whole_run(given: Any) -> None:
    _, scheduler = build(optim_node(STEPSIZE=given, MAX_EPOCH=33))
    assert scheduler.step_size == 33


@pytest.mark.parametrize("given", [2.5, "7", (), [1, "2"], None])
@pytest.mark.parametrize("name", ["single_step", "multi_step"])
def test_stepsize_of_a_wrong_type(name: str, given: Any) -> None:
    if name == "multi_step" and given == ():
        return  # no milestones is a valid, constant schedule
    optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.1)
    with pytest.raises(TypeError, match=rf"^OPTIM\.STEPSIZE is .*; {name} takes ") as caught:
        build_lr_scheduler(optimizer, optim_node(LR_SCHEDULER=name, STEPSIZE=given))
    assert isinstance(caught.value, ConfigError)  # so that train.py reports it without traceback


def test_messages_name_the_key_and_the_closest_match() -> None:
    optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.1)
    with pytest.raises(ConfigError) as caught:
        build_lr_scheduler(optimizer, optim_node(LR_SCHEDULER="cosin"))
    assert str(caught.value) == (
        "OPTIM.LR_SCHEDULER is 'cosin'; expected one of single_step, multi_step, cosine. "
        "Did you mean 'cosine'?"
    )
    with pytest.raises(ConfigError) as caught:
        build_lr_scheduler(optimizer, optim_node(WARMUP_EPOCH=1, WARMUP_TYPE="linaer"))
    assert str(caught.value) == (
        "OPTIM.WARMUP_TYPE is 'linaer'; expected one of linear, constant. Did you mean 'linear'?"
    )


def test_unused_warmup_type_is_not_checked() -> None:
    build(optim_node(WARMUP_EPOCH=-1, WARMUP_TYPE="none"))
