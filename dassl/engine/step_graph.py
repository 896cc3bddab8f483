"""A training step's forward and backward pass as a CUDA graph.

A small step is thousands of short kernels, and a host needs longer to start them one by one than a
GPU to run them. A CUDA graph is recorded once and then started as a whole. It does again exactly
what was recorded, at the same addresses, so it is used only where that is the step:

    inputs of a shape    first time       second, third time                  from then on
                         the plain step   recorded; plain step and replay,    replay
                         (warm-up)        compared on a new batch each time

- Whatever the recorded work reads (weights, folded weights, index tensors) is kept in memory. If
  any of it is exchanged or changes in place, the work is recorded anew; the values of learned
  parameters may change.
- If recording fails, a replay differs from the plain step, or memory is short, the log says so
  once, and all further steps are plain ones.
- The optimizer's step stays outside: its rate changes, and it is a handful of kernels.

Shapes: B images.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from dassl.utils.device import is_full_gpu
from dassl.utils.tools import without_garbage_collection

logger = logging.getLogger(__name__)

MOST_SHAPES = 2  # the usual batch, and an incomplete last one
CHECKS = 2  # replays that are compared: the second one after the parameters have changed
# Largest difference, relative to the largest number: the same kernels, but sums in another order.
TOLERANCE, HALF_TOLERANCE = 1e-3, 2e-2
FLOOR = 1e-3  # numbers this small beside the largest gradient are compared with that one

Passes = Callable[
    [Tensor, Tensor], tuple[Tensor, Tensor]
]  # inputs, labels → loss (), logits (B, C)
Results = list[Tensor | None]


class Graph(Protocol):
    """Recorded work."""

    def capture(self, work: Callable[[], Results]) -> Results:
        """Records work; returns the tensors that a replay writes to."""

    def replay(self) -> None:
        """Does the work again."""


class CudaGraph:
    """Work on the current GPU, recorded by torch."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], Results]) -> Results:
        """See `Graph`; if it fails, GPU and allocator are left as they were."""
        gc.collect()  # a dead autograd graph in a cycle holds memory, and nodes of another stream
        device, current = torch.cuda.current_device(), torch.cuda.current_stream()
        stream, pool = _side_stream(device), torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()  # what one stream has kept, another cannot take
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            work()  # libraries set up what they need once a stream
        current.wait_stream(stream)
        # Other threads, such as those that pin batches, may use the GPU meanwhile.
        mode = "thread_local"
        try:
            with (
                # What is collected may be another graph, or memory of the GPU: no recording
                # survives that.
                without_garbage_collection(),
                torch.cuda.graph(self.graph, pool, stream, capture_error_mode=mode),
            ):
                return work()
        except BaseException:
            torch.cuda.set_stream(current)
            _failed.append(self.graph)
            self.graph.reset()
            _give_back(device, pool)
            raise

    def replay(self) -> None:
        self.graph.replay()


_failed: list[torch.cuda.CUDAGraph] = []  # torch's allocator of pinned memory may still ask them


def _give_back(device: int, pool: tuple[int, int]) -> None:
    """Ends what `capture_end` leaves going where recording has failed: allocating to the pool.

    torch has no public function for that (its own graph trees call these).
    """
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # from 2.8; before
    ends = [getattr(torch._C, name) for name in names if hasattr(torch._C, name)]
    with suppress(RuntimeError):  # recording had not begun
        for end in ends[:1]:
            end(device, pool)
            torch._C._cuda_releasePool(device, pool)


@cache
def _side_stream(device_index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device_index)


class StepGraph:
    """Does what `passes` does, by replaying it where that is possible.

    The work must be the same in each step but for its inputs and the learned parameters: no random
    numbers, no number read by the host, no setting that changes between steps.

    Attributes:
        given_up: why all steps are plain ones; None as long as they need not be.

    Args:
        passes: forward and backward pass; returns loss and logits, without gradient, and leaves
            gradients in the parameters' `.grad`.
        model: has the parameters, and a method `step_constants` (see `CustomCLIP`).
        make_graph: makes what records and replays.
        autocast: products are in half precision, though the model is not; autocast must then cache
            no casts, which would be recorded as constants.
    """

    def __init__(
        self,
        passes: Passes,
        model: nn.Module,
        make_graph: Callable[[], Graph] = CudaGraph,
        autocast: bool = False,
    ) -> None:
        self.passes, self.make_graph = passes, make_graph
        self.given_up: str | None = None
        self._constants: Callable[[], tuple] = model.step_constants
        self._tensors = [*model.parameters(), *model.buffers()]
        in_half = any(t.dtype in (torch.float16, torch.bfloat16) for t in self._tensors)
        self._tolerance = HALF_TOLERANCE if in_half or autocast else TOLERANCE
        self._recordings: dict[tuple, _Recording] = {}

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, ...) and labels (B,) → loss () and logits (B, C); sets gradients."""
        if self.given_up is not None:
            return self._plain(image, label)
        key = (image.shape, image.dtype, image.device, label.shape, label.dtype)
        recording = self._recordings.get(key)
        if recording is None or recording.state != self._state():
            if recording is not None:
                self._recordings.clear()  # the others hold what has been exchanged as well
            results = self._plain(image, label)  # also makes what is made at first use
            if len(self._recordings) < MOST_SHAPES:
                self._recordings[key] = _Recording(image, label, self._state())
            return results
        if recording.checks_left:
            return self._checked(recording, image, label)
        loss, logits, *grads = recording.replay(image, label)
        for parameter, grad in zip(recording.learned, grads):
            parameter.grad = grad
        return loss.clone(), logits.clone()  # the next replay overwrites its own

    def replays(self) -> bool:
        """Whether the steps of some shape are replays by now."""
        return self.given_up is None and any(not r.checks_left for r in self._recordings.values())

    def _plain(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        try:
            _clear(self._learned())
            return self.passes(image, label)
        except RuntimeError as error:
            if not (self._recordings and is_full_gpu(error)):
                raise
        self._give_up("its memory is needed")
        _clear(self._learned())
        return self.passes(image, label)

    def _checked(
        self, recording: _Recording, image: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The plain step; a replay beside it must give the same."""
        replayed = self._replayed(recording, image, label)
        loss, logits = self._plain(image, label)
        if self.given_up is not None:
            return loss, logits
        plain = [loss, logits, *(parameter.grad for parameter in recording.learned)]
        if all(bool(value.isfinite().all()) for value in plain if value is not None):
            recording.checks_left -= 1
            difference = largest_difference(replayed, plain)
            if difference > self._tolerance:
                self._give_up(f"a replay differs from the plain step by {difference:.1e}")
        return loss, logits

    def _replayed(self, recording: _Recording, image: Tensor, label: Tensor) -> Results:
        """Records, unless that is done, and replays; gives up if that cannot be."""
        try:
            if recording.graph is None:
                recording.capture(self.make_graph(), self.passes, self._learned())
            return recording.replay(image, label)
        except Exception as error:  # whatever it is, plain steps do without
            self._give_up(f"{type(error).__name__}: {error}")
            return []

    def _give_up(self, reason: str) -> None:
        self.given_up = reason
        for recording in self._recordings.values():
            recording.release()  # whoever still holds it
        self._recordings.clear()
        logger.warning(
            "Training goes on without a CUDA graph, slower but with the same numbers (%s). "
            "With MODEL.CUDA_GRAPH False, it does so from the start.",
            reason,
        )

    def _learned(self) -> list[Tensor]:
        return [tensor for tensor in self._tensors if tensor.requires_grad]

    def _state(self) -> tuple:
        """What must not change between recording and replay; holding it keeps it in memory."""
        tensors = [
            (t.data_ptr(), t.requires_grad, None if t.requires_grad else t._version)
            for t in self._tensors
        ]
        return (*tensors, *self._constants())


class _Recording:
    """Inputs of one shape, at an address that stays, and the graph of the work on them.

    The first inputs of the shape are in place while the work is recorded: a replay on other ones
    shows whether something of them was recorded as a constant.
    """

    def __init__(self, image: Tensor, label: Tensor, state: tuple) -> None:
        self.image, self.label, self.state = image.clone(), label.clone(), state
        self.graph: Graph | None = None
        self.learned: list[Tensor] = []
        self.checks_left = CHECKS
        self._results: Results = []

    def capture(self, graph: Graph, passes: Passes, learned: list[Tensor]) -> None:
        def work() -> Results:
            _clear(learned)  # so that the gradients' memory is the graph's own
            loss, logits = passes(self.image, self.label)
            return [loss, logits, *(parameter.grad for parameter in learned)]

        self._results = graph.capture(work)
        self.graph, self.learned = graph, learned

    def replay(self, image: Tensor, label: Tensor) -> Results:
        """Returns loss, logits and gradients; the next replay overwrites them."""
        self.image.copy_(image, non_blocking=True)
        self.label.copy_(label, non_blocking=True)
        self.graph.replay()
        return self._results

    def release(self) -> None:
        """Frees the graph and its memory."""
        self.graph = None
        self._results.clear()


def _clear(parameters: list[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


def largest_difference(ours: Results, plain: Results) -> float:
    """Compares loss, logits and gradients, each relative to its largest number.

    Returns:
        The largest difference; infinite if a gradient is missing, or not a number.
    """
    if any((a is None) != (b is None) for a, b in zip(ours, plain, strict=True)):
        return math.inf
    pairs = [(a.double(), b.double()) for a, b in zip(ours, plain) if a is not None]
    floor = FLOOR * max((_size(b) for _, b in pairs[2:]), default=0.0)
    worst = 0.0
    for a, b in pairs:
        difference, size = _size(a - b), max(_size(b), floor)
        if difference != 0.0:  # also where it is not a number
            worst = max(worst, difference / size if size and difference < math.inf else math.inf)
    return worst


def _size(values: Tensor) -> float:
    return values.abs().max().item()
