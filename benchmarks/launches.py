"""What a GPU would have to do for a piece of work: kernels, operations and bytes, counted here.

The work runs on torch's "meta" device, which has shapes and no numbers, so nothing is computed and
no GPU is needed; the project takes the path that it takes on a GPU. An operation of torch that is
no view counts as one kernel. Attention counts as the memory-efficient kernel, forward and backward.

Where a card overlaps nothing, a kernel takes the longest of three times: its operations, its
bytes, and the shortest time that any kernel takes (`Card`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.measure import Work
from encoders import text

META = torch.device("meta")
MEMORY = 70 * 2**30  # free on the imagined card
# Returns memory, or does nothing on a device.
NO_KERNEL = frozenset({"detach", "_unsafe_view", "empty", "empty_like", "new_empty", "lift_fresh"})
TILE = 128  # rows and columns of a product that one multiprocessor computes at a time


@dataclass(frozen=True)
class Kernel:
    """An operation: its name, floating-point operations, and bytes read and written."""

    name: str
    flops: int
    bytes: int
    tiles: int  # that a product's output has; 0: no product


@dataclass(frozen=True)
class Card:
    """What a card does in a second, and what of that is assumed to be reached."""

    flops_per_s: float  # dense, half precision
    bytes_per_s: float
    multiprocessors: int
    flops_share: float  # reached by products that fill the card
    bytes_share: float
    shortest_kernel_s: float  # from one kernel's start to the next one's, in a graph
    launch_s: float  # for the host, without a graph

    def device_seconds(self, kernels: list[Kernel]) -> float:
        """Returns what kernels take that follow each other without a gap."""
        return sum(max(self._terms(kernel)) for kernel in kernels)

    def host_seconds(self, kernels: list[Kernel]) -> float:
        """Returns what the host takes to launch them one by one."""
        return self.launch_s * len(kernels)

    def _terms(self, kernel: Kernel) -> tuple[float, float, float]:
        # A product with fewer tiles than there are multiprocessors leaves the others idle.
        busy = min(1.0, kernel.tiles / self.multiprocessors) if kernel.tiles else 1.0
        return (
            kernel.flops / (self.flops_per_s * self.flops_share * busy),
            kernel.bytes / (self.bytes_per_s * self.bytes_share),
            self.shortest_kernel_s,
        )


def count(work: Work) -> list[Kernel]:
    """Returns the kernels of a work on the meta device, in order, without what is made only once.

    Make the work, too, inside of `meta_device_works`.
    """
    with meta_device_works():
        work()
        with _Kernels() as mode:
            work()
    return mode.kernels


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if _launches(func, name, out):
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            formula = flop_registry.get(func._overloadpacket)
            flops = formula(*args, **(kwargs or {}), out_val=out) if formula else 0
            tiles = _tiles(out) if flops and isinstance(out, Tensor) else 0
            moved = sum({id(x): x.numel() * x.element_size() for x in tensors}.values())
            self.kernels.append(Kernel(name, flops, moved, tiles))
        return out


def _launches(func: Any, name: str, out: Any) -> bool:
    is_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
    has_output = any(isinstance(x, Tensor) for x in tree_leaves(out))
    return has_output and not is_view and name not in NO_KERNEL


def _tiles(out: Tensor) -> int:
    """(..., rows, columns) → how many tiles cover it."""
    *batch, rows, columns = out.shape if out.dim() > 1 else (1, *out.shape)
    n = -(-rows // TILE) * -(-columns // TILE)
    for size in batch:
        n *= size
    return n


def _efficient_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*q.shape[:-1], k.shape[-2])
    wants_gradient = torch.is_grad_enabled() and q.requires_grad
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(q, k, v, attn_mask, wants_gradient, scale=options.get("scale"))[0]


@contextlib.contextmanager
def meta_device_works() -> Iterator[None]:
    """Autocast does not know the device, attention would be taken apart there, and the encoder
    would go through in the small chunks of a CPU."""
    rows = text.INFERENCE_ROWS
    with (
        mock.patch.dict(rows, {"meta": rows["cuda"]}),
        mock.patch.object(text, "free_bytes", lambda _: MEMORY),
        mock.patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()),
        mock.patch.object(torch, "is_autocast_enabled", lambda *_: False),
        mock.patch.object(F, "scaled_dot_product_attention", _efficient_attention),
    ):
        yield
