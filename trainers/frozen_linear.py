"""Products with frozen weights: the layers of CLIP's transformers when only prompts are learned.

Frozen weights allow what `nn.Linear` cannot do:

- Constants fold into the weights, once, in float64 (`FrozenBlock`): the scale and shift of a norm
  go into the projection behind it, the softmax scale into the queries' projection, and the 1.702
  of QuickGELU into the two layers around it, as u * sigmoid(1.702 u) = silu(1.702 u) / 1.702.
- The backward pass is one product, with the transposed weight, and keeps no input.
- Weights can be laid out for the processor beforehand. Which library multiplies faster depends on
  the processor, so two are timed against each other at first use (`default_backend`).

Shapes: R rows (of any tokens), D width. Rows may have leading dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

QUICK_GELU = 1.702  # CLIP's activation is u * sigmoid(1.702 u)
CPU_ROWS = 768  # at most so many rows of an MLP at a time on a CPU: the hidden layer fits the cache

T = TypeVar("T")


# --- GEMM backends --------------------------------------------------------------------------------


class TorchProduct:
    """x → x W^T by torch's own choice of library."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight  # (out, in)

    def __call__(self, x: Tensor, bias: Tensor | None = None, silu: bool = False) -> Tensor:
        out = F.linear(x, self.weight, bias)
        return F.silu(out, inplace=True) if silu else out

    def dense(self) -> Tensor:
        return self.weight


class OneDnnProduct:
    """x → x W^T by oneDNN, with the weight in oneDNN's own layout.

    The operator is one of torch's private ones (torch's compiler emits it on CPUs), so nothing
    may rely on it: `default_backend` tries it and falls back to `TorchProduct`.
    """

    def __init__(self, weight: Tensor) -> None:
        ops = torch.ops.mkldnn
        self.linear = ops._linear_pointwise
        self.weight = ops._reorder_linear_weight(weight.contiguous())

    def __call__(self, x: Tensor, bias: Tensor | None = None, silu: bool = False) -> Tensor:
        if x.numel() == 0:
            return x.new_empty(*x.shape[:-1], self.weight.shape[0])
        # oneDNN's "swish" has no constant here: it is silu
        return self.linear(x, self.weight, bias, "swish" if silu else "none", [], "")

    def dense(self) -> Tensor:
        return self.weight.to_dense()


BACKENDS = {"torch": TorchProduct, "onednn": OneDnnProduct}


def default_backend(device: torch.device, dtype: torch.dtype) -> str:
    """Returns the name of the faster backend, measured once per process and number of threads."""
    if device.type != "cpu" or dtype != torch.float32:
        return "torch"
    return _faster_on_cpu(torch.get_num_threads())


@cache
def _faster_on_cpu(threads: int) -> str:
    """Times both on one MLP layer (256 rows of width 512): takes some ten milliseconds."""
    generator = torch.Generator().manual_seed(0)  # torch's global stream must not move
    x = torch.randn(256, 512, generator=generator)
    weight = torch.randn(2048, 512, generator=generator)
    try:
        if not torch.backends.mkldnn.is_available():
            return "torch"
        products = {name: backend(weight) for name, backend in BACKENDS.items()}
        results = {name: product(x, silu=True) for name, product in products.items()}  # warm up
        dense = products["onednn"].dense()
        if not (
            torch.allclose(results["onednn"], results["torch"], rtol=1e-4, atol=1e-3)
            and torch.equal(dense, weight)
        ):
            return "torch"
    except (AttributeError, RuntimeError, TypeError):  # another torch: no such operator
        return "torch"
    best = dict.fromkeys(BACKENDS, float("inf"))
    for _ in range(8):  # alternating, and the best of each: other programs disturb both alike
        for name, product in products.items():
            start = time.perf_counter()
            product(x)
            best[name] = min(best[name], time.perf_counter() - start)
    return "onednn" if best["onednn"] < 0.95 * best["torch"] else "torch"


# --- layers ---------------------------------------------------------------------------------------


class FrozenLinear:
    """x → x W^T + b with frozen W and b; the gradient reaches x alone.

    Args:
        weight: (out, in), in any precision.
        bias: (out,) or None.
        dtype: of the product; inputs are converted to it.
        backend: a key of BACKENDS.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, backend: str
    ) -> None:
        self.dtype = dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._backend = BACKENDS[backend]
        self._forward = self._backend(weight.detach().to(dtype))
        self._backward: Any = None  # built when a gradient is first asked for

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)"""
        if torch.is_grad_enabled() and x.requires_grad:
            return _FrozenLinear.apply(x, self)
        return self.forward(x)

    def forward(self, x: Tensor, silu: bool = False) -> Tensor:
        return self._forward(x.to(self.dtype), self.bias, silu)

    def backward(self, grad: Tensor) -> Tensor:
        """(..., out) → (..., in)"""
        if self._backward is None:
            self._backward = self._backend(self._forward.dense().t())
        return self._backward(grad.to(self.dtype))


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return layer.forward(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return ctx.layer.backward(grad.contiguous()).to(ctx.dtype), None


class FrozenMLP:
    """x → x + proj(silu(fc(norm(x)))): the second half of a block, with its residual.

    The rows do not see each other, so on a CPU they go through in groups that fit the cache.
    """

    def __init__(self, fc: FrozenLinear, proj: FrozenLinear, eps: float) -> None:
        self.fc, self.proj, self.eps = fc, proj, eps

    @classmethod
    def of(cls, block: nn.Module, dtype: torch.dtype, backend: str) -> FrozenMLP:
        """Folds the second half of clip's ResidualAttentionBlock."""
        fc, proj = block.mlp.c_fc, block.mlp.c_proj
        weight, bias = fold_norm(block.ln_2, fc.weight, fc.bias)
        return cls(
            FrozenLinear(QUICK_GELU * weight, QUICK_GELU * bias, dtype, backend),
            FrozenLinear(proj.weight.double() / QUICK_GELU, proj.bias, dtype, backend),
            block.ln_2.eps,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)"""
        rows = x.reshape(-1, x.shape[-1])  # (R, D)
        if torch.is_grad_enabled() and x.requires_grad:
            return _FrozenMLP.apply(rows, self).view(x.shape)
        out = [part + self._infer(part) for part in _groups(rows)]
        return _join(out).view(x.shape)

    def _infer(self, x: Tensor) -> Tensor:
        return self.proj.forward(self.fc.forward(norm(x, self.eps), silu=True))


class _FrozenMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: FrozenMLP) -> Tensor:
        out, saved = [], []
        for part in _groups(x):
            normed, mean, rstd = torch.native_layer_norm(part, part.shape[-1:], None, None, mlp.eps)
            hidden = mlp.fc.forward(normed)  # (R, 4 D): what the activation's gradient needs
            out.append(part + mlp.proj.forward(F.silu(hidden)))
            saved += [mean, rstd, hidden]
        ctx.mlp = mlp
        ctx.save_for_backward(x, *saved)
        return _join(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, *saved = ctx.saved_tensors
        result = []
        for i, (part, dy) in enumerate(zip(_groups(x), _groups(grad))):
            mean, rstd, hidden = saved[3 * i : 3 * i + 3]
            dhidden = torch.ops.aten.silu_backward(ctx.mlp.proj.backward(dy), hidden)
            dnormed = ctx.mlp.fc.backward(dhidden).to(part.dtype)
            dx, _, _ = torch.ops.aten.native_layer_norm_backward(
                dnormed, part, part.shape[-1:], mean, rstd, None, None, [True, False, False]
            )
            result.append(dx.add_(dy))
        return _join(result), None


class FrozenBlock:
    """A residual attention block of CLIP, folded and frozen; attention itself is the caller's.

    Args:
        block: clip's ResidualAttentionBlock.
        dtype: of the products.
        backend: a key of BACKENDS.
        split_query: project queries apart from keys and values (for a last layer, where only few
            rows have a query).
    """

    def __init__(
        self, block: nn.Module, dtype: torch.dtype, backend: str, split_query: bool = False
    ) -> None:
        attn, width = block.attn, block.attn.embed_dim
        self.eps = block.ln_1.eps
        scale = torch.ones(3 * width, dtype=torch.float64, device=attn.in_proj_weight.device)
        scale[:width] = (width // attn.num_heads) ** -0.5  # the softmax scale, into the queries
        weight, bias = fold_norm(block.ln_1, attn.in_proj_weight, attn.in_proj_bias)
        weight, bias = scale[:, None] * weight, scale * bias
        if split_query:
            self.q = FrozenLinear(weight[:width], bias[:width], dtype, backend)
            self.kv = FrozenLinear(weight[width:], bias[width:], dtype, backend)
        else:
            self.qkv = FrozenLinear(weight, bias, dtype, backend)
        self.out = FrozenLinear(attn.out_proj.weight, attn.out_proj.bias, dtype, backend)
        self.mlp = FrozenMLP.of(block, dtype, backend)

    def norm(self, x: Tensor) -> Tensor:
        return norm(x, self.eps)


class Seal:
    """Tells whether tensors are still those that they were, and nobody has written to them.

    It keeps their memory alive, so that no other tensor can come to lie at the same address. What
    is written past autograd (`weight.data.add_()`) it does not see.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = [tensor.detach() for tensor in tensors]
        self._state = _state(self._tensors)

    def holds(self, tensors: Iterable[Tensor]) -> bool:
        return _state(tensors) == self._state


def _state(tensors: Iterable[Tensor]) -> list[tuple]:
    return [(t.data_ptr(), t._version, t.dtype, t.device) for t in tensors]


class Folded(Generic[T]):
    """Keeps what was folded from weights; folds anew when they, or the precision, have changed.

    Args:
        backend: a key of BACKENDS; None: the faster one.
    """

    def __init__(self, backend: str | None = None) -> None:
        self.backend = backend
        self._value: tuple[tuple, Seal, T] | None = None

    @classmethod
    def beside(cls, module: nn.Module, backend: str | None) -> Folded:
        """Returns what is folded from a module's weights, the same for all who ask.

        One who wants a certain backend gets it alone.
        """
        return cls(backend) if backend else vars(module).setdefault("_folded", cls())

    def get(
        self,
        weights: Iterable[Tensor],
        dtype: torch.dtype,
        fold: Callable[[torch.dtype, str], T],
    ) -> T:
        """Returns what `fold` made of the weights.

        Args:
            weights: all that is folded.
            dtype: theirs; autocast overrides it.
            fold: called with the dtype of the products and a key of BACKENDS.
        """
        weights = list(weights)
        device = weights[0].device
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        how = (dtype, self.backend or default_backend(device, dtype))
        if self._value is None or self._value[0] != how or not self._value[1].holds(weights):
            self._value = None  # frees memory before more is taken
            with torch.no_grad():
                self._value = (how, Seal(weights), fold(*how))
        return self._value[2]

    @property
    def value(self) -> T | None:
        """What was folded last."""
        return None if self._value is None else self._value[2]

    def __deepcopy__(self, memo: dict) -> Folded[T]:  # oneDNN's weights cannot be copied
        return Folded(self.backend)

    def __reduce__(self) -> tuple:
        return Folded, (self.backend,)


def fold_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Folds a norm's scale and shift into the projection behind it.

    Args:
        norm: applied before the projection.
        weight: (out, in).
        bias: (out,) or None.

    Returns:
        Weight and bias for an input that was only normalized, float64.
    """
    weight = weight.detach().double()
    shift = weight @ norm.bias.detach().double()
    if bias is not None:
        shift = shift + bias.detach().double()
    return weight * norm.weight.detach().double(), shift


def norm(x: Tensor, eps: float) -> Tensor:
    """Normalizes rows to mean 0 and variance 1; computed in float32 at least."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _groups(x: Tensor) -> tuple[Tensor, ...]:
    """Splits rows evenly: a few left over would read all weights for little."""
    return x.chunk(-(-len(x) // CPU_ROWS)) if x.device.type == "cpu" and len(x) > CPU_ROWS else (x,)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
