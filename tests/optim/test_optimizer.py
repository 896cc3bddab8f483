"""Optimisers: options, parameter groups, errors."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from dassl.optim import AVAI_OPTIMS, build_optimizer
from dassl.utils.errors import ConfigError
from tests.optim.golden_schedules import optim_node, tiny_model


@pytest.mark.parametrize("name", AVAI_OPTIMS)
def test_module_list_and_groups_are_accepted(name: str) -> None:
    cfg = optim_node(NAME=name, LR=0.01)
    model = tiny_model()
    groups = [{"params": model.head.parameters(), "lr": 0.5}]
    for given in (model, model.parameters(), list(model.parameters())):
        optimizer = build_optimizer(given, cfg)
        assert [len(g["params"]) for g in optimizer.param_groups] == [4]
    for optimizer in (build_optimizer(groups, cfg), build_optimizer(model, cfg, groups)):
        groups = [{"params": model.head.parameters(), "lr": 0.5}]
        assert [g["lr"] for g in optimizer.param_groups] == [0.5]


def test_unknown_name() -> None:
    with pytest.raises(ConfigError) as caught:
        build_optimizer(tiny_model(), optim_node(NAME="sdg"))
    assert str(caught.value) == (
        "OPTIM.NAME is 'sdg'; expected one of adam, amsgrad, sgd, rmsprop, radam, adamw. "
        "Did you mean 'sgd'?"
    )


def test_sgd_options_come_from_the_configuration() -> None:
    cfg = optim_node(NAME="sgd", MOMENTUM=0.5, SGD_NESTEROV=True, WEIGHT_DECAY=0.25)
    group = build_optimizer(tiny_model(), cfg).param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.5, True, 0.25)


def test_radam_shrinks_the_weights_directly() -> None:
    """arXiv 1908.03265's code: w <- w - lr * decay * w, outside the gradient."""
    weight = nn.Parameter(torch.full((3,), 2.0))
    optimizer = build_optimizer([weight], optim_node(NAME="radam", LR=0.1, WEIGHT_DECAY=0.5))
    weight.grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((3,), 2.0 * (1 - 0.1 * 0.5)))


def test_frozen_parameters_stay_in_the_groups() -> None:
    model = tiny_model()
    model.backbone.requires_grad_(False)
    optimizer = build_optimizer(model, optim_node())
    assert len(optimizer.param_groups[0]["params"]) == 4


@pytest.mark.parametrize("new_layers", ["head", ("head",), ["head"]])
@pytest.mark.parametrize("parallel", [False, True])
def test_staged_lr(new_layers: object, parallel: bool) -> None:
    model = tiny_model()
    cfg = optim_node(LR=0.01, STAGED_LR=True, NEW_LAYERS=new_layers, BASE_LR_MULT=0.1)
    base, new = build_optimizer(nn.DataParallel(model) if parallel else model, cfg).param_groups
    assert base["lr"] == pytest.approx(0.001)
    assert new["lr"] == 0.01
    assert [id(p) for p in base["params"]] == [id(p) for p in model.backbone.parameters()]
    assert [id(p) for p in new["params"]] == [id(p) for p in model.head.parameters()]


def test_staged_lr_keeps_the_parameters_of_the_module_itself() -> None:
    model = tiny_model()
    model.scale = nn.Parameter(torch.ones(1))
    cfg = optim_node(STAGED_LR=True, NEW_LAYERS=("head",))
    base, _ = build_optimizer(model, cfg).param_groups
    assert any(p is model.scale for p in base["params"])


@pytest.mark.parametrize("new_layers", [(), ("haed",)])
def test_staged_lr_without_such_a_layer_warns(
    new_layers: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        build_optimizer(tiny_model(), optim_node(STAGED_LR=True, NEW_LAYERS=new_layers))
    assert "OPTIM.NEW_LAYERS" in caplog.text
    assert "backbone, head" in caplog.text


def test_staged_lr_needs_a_module() -> None:
    cfg = optim_node(STAGED_LR=True, NEW_LAYERS=("head",))
    with pytest.raises(TypeError, match=r"OPTIM\.STAGED_LR .* got list"):
        build_optimizer(list(tiny_model().parameters()), cfg)


def test_given_groups_win_over_staged_lr(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    cfg = optim_node(STAGED_LR=True, NEW_LAYERS=("head",))
    with caplog.at_level(logging.WARNING):
        optimizer = build_optimizer(model, cfg, [{"params": model.head.parameters()}])
    assert len(optimizer.param_groups) == 1
    assert "OPTIM.STAGED_LR is ignored" in caplog.text
