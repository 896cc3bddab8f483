"""Which library multiplies: GEMM backends for frozen weights.

Weights that never change can be laid out for the processor beforehand. Which library does it is a
rule, not a measurement: two processes on one machine compute the same bits.

An activation may follow a product: "silu", "gelu" (the exact one) or, "", none.

Shapes: R rows (of any tokens). Rows may have leading dimensions.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


class TorchProduct:
    """x → x W^T by torch's own choice of library."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight  # (out, in)

    def __call__(self, x: Tensor, bias: Tensor | None = None, activation: str = "") -> Tensor:
        out = F.linear(x, self.weight, bias)
        if activation == "silu":
            return F.silu(out, inplace=True)
        return F.gelu(out) if activation == "gelu" else out

    def dense(self) -> Tensor:
        return self.weight


# oneDNN's name, constants and algorithm of an activation behind a product. Its "swish" has no
# constant here: it is silu. GELU's algorithm "none" is the exact one, by the error function.
_ONEDNN: dict[str, tuple[str, list, str]] = {
    "": ("none", [], ""),
    "silu": ("swish", [], ""),
    "gelu": ("gelu", [], "none"),
}


class OneDnnProduct:
    """x → x W^T by oneDNN, with the weight in oneDNN's own layout.

    The operator is one of torch's private ones (torch's compiler emits it on CPUs), so nothing
    may rely on it: `default_backend` takes it only where `onednn_works`.
    """

    def __init__(self, weight: Tensor) -> None:
        ops = torch.ops.mkldnn
        self.linear = ops._linear_pointwise
        self.weight = ops._reorder_linear_weight(weight.contiguous())

    def __call__(self, x: Tensor, bias: Tensor | None = None, activation: str = "") -> Tensor:
        if x.numel() == 0:
            return x.new_empty(*x.shape[:-1], self.weight.shape[0])
        return self.linear(x, self.weight, bias, *_ONEDNN[activation])

    def dense(self) -> Tensor:
        return self.weight.to_dense()


TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 4e-2}  # of `onednn_works`
BACKENDS: dict[str, type[TorchProduct] | type[OneDnnProduct]] = {
    "torch": TorchProduct,
    "onednn": OneDnnProduct,
}


def default_backend(device: torch.device, dtype: torch.dtype) -> str:
    """Returns a key of BACKENDS: oneDNN on a CPU where it works, torch elsewhere."""
    on_cpu = device.type == "cpu" and dtype in TOLERANCES
    return "onednn" if on_cpu and onednn_works(dtype) else "torch"


@cache
def onednn_works(dtype: torch.dtype = torch.float32) -> bool:
    """Whether oneDNN's operators are there and multiply as torch does; tried once a process."""
    generator = torch.Generator().manual_seed(0)  # torch's global stream must not move
    x = torch.randn(5, 48, generator=generator).to(dtype)
    weight = torch.randn(32, 48, generator=generator).to(dtype)
    off = TOLERANCES[dtype]
    try:
        if not torch.backends.mkldnn.is_available():
            return False
        ours, plain = (BACKENDS[name](weight) for name in ("onednn", "torch"))
        pairs = [(ours(x, activation=name), plain(x, activation=name)) for name in _ONEDNN]
        same = all(torch.allclose(*pair, rtol=off, atol=off) for pair in pairs)
        return same and torch.equal(ours.dense(), weight)
    except (AttributeError, RuntimeError, TypeError):  # another torch: no such operator
        return False


def multiplies_in_bf16() -> bool:
    """Whether the processor has products in bfloat16, as far as torch tells."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))
