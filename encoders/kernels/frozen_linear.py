"""Products with frozen weights: the layers of CLIP's transformers when only prompts are learned.

Frozen weights allow what `nn.Linear` cannot do:

- Constants fold into the weights, once, in float64 (`FrozenBlock`): the scale and shift of a norm
  go into the projection behind it, the softmax scale into the queries' projection, and the 1.702
  of QuickGELU into the two layers around it, as u * sigmoid(1.702 u) = silu(1.702 u) / 1.702.
  GELU, which towers of other packages have, stays the exact one, by the error function.
- The backward pass is one product, with the transposed weight, and keeps no input.
- Weights are laid out for the processor beforehand (`gemm`).

Shapes: R rows (of any tokens), D width. Rows may have leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dassl.utils.errors import ConfigError
from encoders.kernels import second_order
from encoders.kernels.folding import fold_norm
from encoders.kernels.gemm import BACKENDS

QUICK_GELU = 1.702  # CLIP's activation is u * sigmoid(1.702 u)
CPU_ROWS = 768  # at most so many rows of an MLP at a time on a CPU: the hidden layer fits the cache


@dataclass(frozen=True)
class Activation:
    """u → name(scale * u) / scale, between the two layers of an MLP.

    Attributes:
        name: what the GEMM backends call the function itself.
        scale: folds into the layer before, its inverse into the one behind.
        of: the function.
        backward: gradient of its result and its argument → gradient of its argument.
        second: the same with the second derivative.
    """

    name: str
    scale: float
    of: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    second: Callable[[Tensor, Tensor], Tensor]


def _second_silu(grad: Tensor, u: Tensor) -> Tensor:
    s = u.sigmoid()  # silu'' = s (1 - s) (2 + u - 2 u s)
    return torch.ops.aten.sigmoid_backward(grad, s).mul_(torch.addcmul(u + 2, u, s, value=-2))


def _second_gelu(grad: Tensor, u: Tensor) -> Tensor:
    return grad * (2 - u**2) * (-(u**2) / 2).exp() / (2 * torch.pi) ** 0.5


ACTIVATIONS = {
    "quick_gelu": Activation(
        "silu", QUICK_GELU, F.silu, torch.ops.aten.silu_backward, _second_silu
    ),
    "gelu": Activation("gelu", 1.0, F.gelu, torch.ops.aten.gelu_backward, _second_gelu),
}


def activation_of(block: Any) -> Activation:
    """Returns the activation of a residual block's MLP; raises ConfigError for an unknown one."""
    module = block.mlp.gelu
    if type(module).__name__ == "QuickGELU":  # each package has a class of its own
        return ACTIVATIONS["quick_gelu"]
    if isinstance(module, nn.GELU) and module.approximate == "none":
        return ACTIVATIONS["gelu"]
    raise ConfigError(
        f"the activation {module} cannot be run; expected QuickGELU or the exact GELU"
    )


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

    def forward(self, x: Tensor, activation: str = "", bias: bool = True) -> Tensor:
        return self._forward(x.to(self.dtype), self.bias if bias else None, activation)

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
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return _TransposedLinear.apply(grad, ctx.layer, ctx.dtype), None


class _TransposedLinear(torch.autograd.Function):
    """The gradient of a frozen layer, a product as well, and so is the gradient of that."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, layer: FrozenLinear, dtype: torch.dtype) -> Tensor:
        ctx.layer, ctx.dtype = layer, grad.dtype
        return layer.backward(grad.contiguous()).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return ctx.layer.forward(grad.contiguous(), bias=False).to(ctx.dtype), None, None


class FrozenMLP:
    """x → x + proj(act(fc(norm(x)))): the second half of a block, with its residual.

    The rows do not see each other, so on a CPU they go through in groups that fit the cache.
    """

    def __init__(self, fc: FrozenLinear, proj: FrozenLinear, act: Activation, eps: float) -> None:
        self.fc, self.proj, self.act, self.eps = fc, proj, act, eps

    @classmethod
    def of(cls, block: Any, dtype: torch.dtype, backend: str) -> FrozenMLP:
        """Folds the second half of clip's ResidualAttentionBlock."""
        fc, proj, act = block.mlp.c_fc, block.mlp.c_proj, activation_of(block)
        weight, bias = fold_norm(block.ln_2, fc.weight, fc.bias)
        return cls(
            FrozenLinear(act.scale * weight, act.scale * bias, dtype, backend),
            FrozenLinear(proj.weight.double() / act.scale, proj.bias, dtype, backend),
            act,
            block.ln_2.eps,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)"""
        rows = x.reshape(-1, x.shape[-1])  # (R, D)
        if torch.is_grad_enabled() and x.requires_grad:
            if second_order.is_wanted():
                return x + self.proj(second_order.activate(self.fc(norm(x, self.eps)), self.act))
            return _FrozenMLP.apply(rows, self).view(x.shape)
        out = [part + self._infer(part) for part in _groups(rows)]
        return _join(out).view(x.shape)

    def _infer(self, x: Tensor) -> Tensor:
        return self.proj.forward(self.fc.forward(norm(x, self.eps), self.act.name))


class _FrozenMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: FrozenMLP) -> Tensor:
        out, saved = [], []
        for part in _groups(x):
            normed, mean, rstd = torch.native_layer_norm(part, part.shape[-1:], None, None, mlp.eps)
            hidden = mlp.fc.forward(normed)  # (R, 4 D): what the activation's gradient needs
            out.append(part + mlp.proj.forward(mlp.act.of(hidden)))
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
            dhidden = ctx.mlp.act.backward(ctx.mlp.proj.backward(dy), hidden)
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
        self, block: Any, dtype: torch.dtype, backend: str, split_query: bool = False
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


def norm(x: Tensor, eps: float) -> Tensor:
    """Normalizes rows to mean 0 and variance 1; computed in float32 at least."""
    if second_order.is_wanted() and x.requires_grad:
        return second_order.norm(x, eps)
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _groups(x: Tensor) -> tuple[Tensor, ...]:
    """Splits rows evenly: a few left over would read all weights for little."""
    return x.chunk(-(-len(x) // CPU_ROWS)) if x.device.type == "cpu" and len(x) > CPU_ROWS else (x,)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
