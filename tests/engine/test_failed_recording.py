"""A recording that fails leaves stream, allocator and garbage collector as they were."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools

import pytest
import torch
from torch import Tensor

from dassl.engine import step_graph
from dassl.engine.step_graph import CudaGraph, StepGraph
from tests.engine.test_step_graph import Model, batches, train


class FakeCuda:
    """torch.cuda, as far as a recording goes: the current stream, and pools that are written to.

    As in torch, leaving `graph` raises where the recording was spoilt, and then neither goes back
    to the stream before nor ends allocating to the pool.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.current, self.pools, self.spoilt = "main", [], False
        self.collecting: list[bool] = []
        fakes = {
            "CUDAGraph": lambda: self,
            "current_device": lambda: 0,
            "current_stream": lambda: self,
            "set_stream": lambda stream: setattr(self, "current", "main"),
            "graph_pool_handle": lambda: (0, 7),
            "stream": lambda stream: contextlib.nullcontext(),
            "graph": self.graph,
        }
        for name, fake in fakes.items():
            patch.setattr(torch.cuda, name, fake)
        patch.setattr(step_graph, "_side_stream", lambda device: self)
        patch.setattr(torch._C, "_cuda_endAllocateToPool", self.end, raising=False)
        patch.setattr(torch._C, "_cuda_releasePool", lambda *_: None, raising=False)

    def end(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.pools:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.pools.remove(pool)

    @contextlib.contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        self.current = "side"
        self.pools.append(pool)
        try:
            self.collecting.append(gc.isenabled())
            yield
        finally:
            if self.spoilt:
                raise RuntimeError("operation failed due to a previous error during capture")
            self.end(0, pool)
            self.current = "main"

    def wait_stream(self, stream) -> None:
        pass

    def reset(self) -> None:
        pass


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("collecting", [False, True])
def test_a_recording_that_fails_leaves_the_gpu_as_it_was(monkeypatch, spoilt, collecting):
    """`spoilt`: the work asked for what no recording allows, such as `.item()`."""
    cuda, calls = FakeCuda(monkeypatch), []

    def work() -> list:
        calls.append(cuda.current)
        if len(calls) == 2:
            cuda.spoilt = spoilt
            raise RuntimeError("operation not permitted when stream is capturing")
        return []

    enabled = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(RuntimeError):
            CudaGraph().capture(work)
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if enabled else gc.disable)()
    assert calls == ["main", "side"]
    assert cuda.collecting == [False], "what is collected while recording spoils it"
    assert (cuda.current, cuda.pools) == ("main", [])


@pytest.mark.gpu
def test_a_step_that_reads_from_the_gpu_goes_on_without_a_graph(caplog):
    """`.item()` cannot be recorded; plain steps and later graphs in the process are right."""
    model = Model().cuda()
    plain = copy.deepcopy(model)

    def passes(x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = model.passes(x, label)
        loss.item()
        return loss, logits

    stream = torch.cuda.current_stream()
    step = StepGraph(passes, model)
    inputs = [(x.cuda(), label.cuda()) for x, label in batches(*[4] * 8)]
    got, expected = train(model, step, inputs), train(plain, plain.passes, inputs)
    assert all(itertools.starmap(torch.allclose, zip(got, expected, strict=True)))
    assert step.given_up is not None
    assert len(caplog.records) == 1
    assert torch.cuda.current_stream() == stream
    held = torch.cuda.memory_reserved()
    torch.empty(held + 2**20, dtype=torch.uint8, device="cuda")  # a new block, given back at once
    torch.cuda.empty_cache()  # refused while the allocator still believes in a recording
    assert torch.cuda.memory_reserved() <= held
    again = StepGraph(model.passes, model)
    got, expected = train(model, again, inputs), train(plain, plain.passes, inputs)
    assert again.replays()
    assert all(itertools.starmap(torch.allclose, zip(got, expected, strict=True)))
