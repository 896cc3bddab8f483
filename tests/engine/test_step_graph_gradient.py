"""A replay that gets one number of one gradient slightly wrong is found out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dassl.engine.step_graph import CHECKS, TOLERANCE, StepGraph

LOSS, LOGITS, FIRST, SECOND = range(4)  # results of a replay


class Model(nn.Module):
    """Two layers; the gradients of the second are some times larger than those of the first."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(5, 4, generator=generator))
        self.second = nn.Parameter(0.2 * torch.randn(4, 3, generator=generator))

    def step_constants(self) -> tuple[object, ...]:
        return ()

    def passes(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        logits = x @ self.first @ self.second
        loss = nn.functional.cross_entropy(logits, label)
        loss.backward()
        return loss.detach(), logits.detach()


class WrongGraph:
    """Does the work again, but for the smallest number of one result, in one of its replays.

    Args:
        which: the result.
        error: what is added, in units of the largest number of the result.
        replay: counted from 1.
    """

    def __init__(self, which: int, error: float, replay: int) -> None:
        self.which, self.error, self.wrong_replay, self.count = which, error, replay, 0

    def capture(self, work):
        self.work = work
        self.results = [result.clone() for result in work()]
        return self.results

    def replay(self) -> None:
        self.count += 1
        for result, value in zip(self.results, self.work(), strict=True):
            result.copy_(value)
        if self.count == self.wrong_replay:
            wrong = self.results[self.which].view(-1)
            wrong[wrong.abs().argmin()] += self.error * wrong.abs().max()


def trained(graph: WrongGraph) -> StepGraph:
    model = Model()
    step = StepGraph(model.passes, model, lambda: graph)
    generator = torch.Generator().manual_seed(1)
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2 + CHECKS):
        optim.zero_grad()
        step(torch.randn(6, 5, generator=generator), torch.arange(6) % 3)
        optim.step()
    return step


@pytest.mark.parametrize("replay", range(1, 1 + CHECKS))
@pytest.mark.parametrize("which", [LOSS, LOGITS, FIRST, SECOND])
def test_one_wrong_number_is_found(which, replay):
    step = trained(WrongGraph(which, 1.1 * TOLERANCE, replay))
    assert step.given_up is not None
    assert "differs from the plain step by 1.1e-03" in step.given_up
    assert not step.replays()


@pytest.mark.parametrize("which", [LOSS, LOGITS, FIRST, SECOND])
def test_rounding_is_not_an_error(which):
    step = trained(WrongGraph(which, 0.9 * TOLERANCE, replay=1))
    assert step.given_up is None
    assert step.replays()
