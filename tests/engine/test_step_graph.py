"""Recorded steps, with a stand-in for the CUDA graph that does the work again on a CPU."""

from __future__ import annotations

import copy
import gc
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from dassl.engine.step_graph import CHECKS, StepGraph, largest_difference


class FakeGraph:
    """Does the work again where a CUDA graph would: from the same inputs, to the same results.

    Use a class derived from it: a class counts.
    """

    made = 0  # how many of the class were made
    replays = 0

    def __init__(self) -> None:
        type(self).made += 1

    def capture(self, work):
        self.work = work
        self.results = [None if r is None else r.clone() for r in work()]
        return self.results

    def replay(self) -> None:
        type(self).replays += 1
        for result, value in zip(self.results, self.work()):
            if result is not None:
                result.copy_(value)


@pytest.fixture
def fake() -> type[FakeGraph]:
    """A class of its own, which counts from zero."""

    class Fake(FakeGraph):
        pass

    return Fake


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.frozen = nn.Parameter(torch.randn(5, 4, generator=generator), requires_grad=False)
        self.learned = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.unused = nn.Parameter(torch.zeros(2))
        self.constants: list[object] = ["a constant"]

    def step_constants(self) -> tuple[object, ...]:
        return tuple(self.constants)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.frozen @ self.learned

    def passes(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(x)
        loss = nn.functional.cross_entropy(logits, label)
        loss.backward()
        return loss.detach(), logits.detach()


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 5, generator=generator), torch.randint(3, (n,), generator=generator))
        for n in sizes
    ]


def train(model: Model, step, inputs: list) -> list[Tensor]:
    """Returns everything that steps return, and the gradients they leave."""
    optim = torch.optim.SGD([model.learned, model.unused], lr=0.1, momentum=0.9)
    seen = []
    for x, label in inputs:
        optim.zero_grad()
        results = step(x, label)
        optim.step()
        seen += [*results, model.learned.grad.clone(), model.learned.detach().clone()]
        assert model.unused.grad is None
    return seen


def check_equal(make_graph, *sizes: int, model: Model | None = None) -> StepGraph:
    """Trains with recorded and with plain steps: the same numbers, bit for bit."""
    model = model or Model()
    plain = copy.deepcopy(model)
    step = StepGraph(model.passes, model, make_graph)
    inputs = batches(*sizes)
    got, expected = train(model, step, inputs), train(plain, plain.passes, inputs)
    assert all(itertools.starmap(torch.equal, zip(got, expected, strict=True)))
    return step


def test_replays_equal_plain_steps(fake):
    step = check_equal(fake, *[4] * 8)
    assert (fake.made, fake.replays) == (1, 7), "all but the first step"
    assert step.replays()


def test_an_incomplete_last_batch_has_a_graph_of_its_own(fake):
    check_equal(fake, *[4, 4, 4, 3] * 5)
    assert (fake.made, fake.replays) == (2, 14 + 4)


def test_a_third_shape_is_never_recorded(fake):
    check_equal(fake, *[4, 3, 2, 1] * 4)
    assert fake.made == 2


def test_another_dtype_is_another_shape(fake):
    model = Model()
    step = StepGraph(lambda x, label: model.passes(x.float(), label), model, fake)
    ((x, label),) = batches(4)
    for dtype in (torch.float32, torch.float64) * 3:
        step(x.to(dtype), label)
    assert fake.made == 2


def test_results_are_not_overwritten(fake):
    model = Model()
    step = StepGraph(model.passes, model, fake)
    inputs = batches(*[4] * 6)
    results = [step(*pair) for pair in inputs]
    for pair, (loss, logits) in zip(inputs, results):
        expected = model.passes(*pair)
        assert torch.equal(loss, expected[0])
        assert torch.equal(logits, expected[1])


def changes():
    def frozen_in_place(model: Model) -> None:
        with torch.no_grad():
            model.frozen += 1

    def frozen_elsewhere(model: Model) -> None:
        model.frozen.data = model.frozen.data * 2

    def learned_elsewhere(model: Model) -> None:
        model.learned.data = model.learned.data.clone()

    def constant(model: Model) -> None:
        model.constants[0] = "another"

    def what_is_learned(model: Model) -> None:
        model.frozen.requires_grad_(True)

    return [frozen_in_place, frozen_elsewhere, learned_elsewhere, constant, what_is_learned]


@pytest.mark.parametrize("change", changes(), ids=lambda c: c.__name__)
def test_a_change_is_recorded_anew(fake, change):
    model = Model()
    step = StepGraph(model.passes, model, fake)
    inputs = batches(*[4] * 12)
    train(model, step, inputs[:4])
    change(model)
    plain = copy.deepcopy(model)
    for p in (*model.parameters(), *plain.parameters()):
        p.grad = None
    got = train(model, step, inputs[4:])
    expected = train(plain, plain.passes, inputs[4:])
    assert all(itertools.starmap(torch.equal, zip(got, expected, strict=True)))
    if model.frozen.requires_grad:
        step(*inputs[0])
        assert model.frozen.grad is not None
    assert fake.made == 2
    assert step.replays()


@pytest.mark.slow
def test_what_a_graph_reads_is_kept(fake):
    """A constant that nobody else holds any more must not be freed under a graph."""

    class Constant:
        deleted = False

        def __del__(self) -> None:
            Constant.deleted = True

    model = Model()
    model.constants[0] = Constant()
    step = StepGraph(model.passes, model, fake)
    train(model, step, batches(*[4] * 4))
    model.constants[0] = "another"
    gc.collect()
    assert not Constant.deleted
    train(model, step, batches(4))
    gc.collect()
    assert Constant.deleted, "its graph is gone"


class StaleGraph(FakeGraph):
    """Its replays do nothing."""

    def replay(self) -> None:
        pass


class NotANumberGraph(FakeGraph):
    def replay(self) -> None:
        super().replay()
        self.results[2].fill_(math.nan)


class NoGradientGraph(FakeGraph):
    def capture(self, work):
        return [*super().capture(work)[:2], None, None]


class LateGraph(FakeGraph):
    """Right at first; wrong once the parameters have changed."""

    def replay(self) -> None:
        self.count = getattr(self, "count", 0) + 1
        if self.count < 2:
            super().replay()


class UnsupportedGraph(FakeGraph):
    def capture(self, work):
        work()
        raise RuntimeError("operation not permitted when stream is capturing")


class BrokenGraph(FakeGraph):
    def replay(self) -> None:
        raise RuntimeError("no replay")


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (StaleGraph, "differs from the plain step by"),
        (LateGraph, "differs from the plain step by"),
        (NotANumberGraph, "differs from the plain step by inf"),
        (NoGradientGraph, "differs from the plain step by inf"),
        (UnsupportedGraph, "RuntimeError: operation not permitted"),
        (BrokenGraph, "RuntimeError: no replay"),
    ],
)
def test_what_cannot_be_recorded_is_plain_and_said_once(caplog, graph, reason):
    step = check_equal(graph, *[4, 4, 4, 4, 3, 3, 3] * 2)
    assert reason in step.given_up
    assert not step.replays()
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert "MODEL.CUDA_GRAPH False" in caplog.text


def test_a_graph_gives_its_memory_to_the_plain_step(caplog):
    """An out-of-memory error beside a graph is not one of the step."""
    model = Model()

    def passes(x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        held = step._recordings.values()
        if any(r.graph is not None for r in held):
            raise torch.cuda.OutOfMemoryError("no memory")
        return model.passes(x, label)

    step = StepGraph(passes, model, StaleGraph)
    plain = copy.deepcopy(model)
    inputs = batches(*[4] * 5)
    got, expected = train(model, step, inputs), train(plain, plain.passes, inputs)
    assert all(itertools.starmap(torch.equal, zip(got, expected, strict=True)))
    assert step.given_up == "its memory is needed"
    assert len(caplog.records) == 1


def test_an_error_of_the_step_itself_is_raised(fake):
    def passes(x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        raise torch.cuda.OutOfMemoryError("no memory")

    step = StepGraph(passes, Model(), fake)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        step(*batches(4)[0])


def test_a_loss_that_is_not_finite_decides_nothing(fake, caplog):
    model = Model()
    step = StepGraph(model.passes, model, fake)
    (x, label), *others = batches(*[4] * 6)
    step(x, label)
    for _ in range(3 * CHECKS):
        loss, _ = step(x * math.nan, label)
        assert loss.isnan()
    assert not step.replays()
    assert not caplog.records
    for pair in others:
        step(*pair)
    assert step.replays()


def test_largest_difference():
    one, small = torch.ones(3), torch.full((3,), 1e-6)
    assert largest_difference([one, one, None], [one, one, None]) == 0
    assert largest_difference([one, one * 1.5], [one, one]) == 0.5
    assert largest_difference([one, one, one, 2 * small], [one, one, one, small]) <= 0.0011
    assert largest_difference([one, one, 2 * small], [one, one, small]) == pytest.approx(1)
    zero = torch.zeros(3)
    assert largest_difference([zero, zero, zero], [zero, zero, zero]) == 0
    assert largest_difference([zero, zero, one], [zero, zero, zero]) == math.inf
    assert largest_difference([one, one, one / 0], [one, one, one]) == math.inf
