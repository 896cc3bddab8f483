"""RAdam with the public arguments, and OPTIM.ADAM_EPS where somebody's settings add it."""

import pytest
import torch
from torch import nn

from dassl.optim import build_optimizer
from dassl.optim.radam import RAdam
from tests.optim.golden_schedules import optim_node


def test_first_step_is_one_with_momentum() -> None:
    """arXiv 1908.03265, algorithm 2: at first, w <- w - lr m / (1 - beta1)."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = RAdam([weight], lr=0.5, weight_decay=0.1)
    weight.grad = torch.tensor([0.2, 0.4])
    optimizer.step()
    expected = torch.tensor([1.0, -2.0]) * (1 - 0.5 * 0.1) - 0.5 * weight.grad
    torch.testing.assert_close(weight.detach(), expected)


def test_another_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="degenerated_to_sgd is False"):
        RAdam([nn.Parameter(torch.zeros(1))], degenerated_to_sgd=False)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "adamw", "radam"])
def test_adam_eps(name: str) -> None:
    parameters, cfg = [nn.Parameter(torch.zeros(1))], optim_node(NAME=name)
    assert build_optimizer(parameters, cfg).defaults["eps"] == 1e-8
    cfg.ADAM_EPS = 1e-3
    assert build_optimizer(parameters, cfg).defaults["eps"] == 1e-3
