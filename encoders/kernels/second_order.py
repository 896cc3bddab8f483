"""Gradients of gradients: inside `twice_differentiable`, kernels compute by what has them.

The backward passes written by hand in this folder have no gradient of their own, for speed and
memory's sake. A method that differentiates through a gradient step (MAML, arXiv 1703.03400)
computes inside what it steps along: the same rows, the same folded weights, the same numbers.

torch has gradients of gradients of all that happens there. Where its own are a long chain of small
operations, they are written by hand here (a norm's are 13 instead of 59), or keep much (attention).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_wanted = False  # of the process, not of a thread: on a GPU, a backward pass has one of its own


def is_wanted() -> bool:
    """Whether what is computed now must have gradients of gradients."""
    return _wanted


@contextmanager
def twice_differentiable(wanted: bool = True) -> Iterator[None]:
    """Inside, the towers' features have gradients of gradients, if that is wanted."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before


class Activation(Protocol):
    """A function of each number, and its derivatives times a gradient."""

    def of(self, u: Tensor) -> Tensor: ...
    def backward(self, grad: Tensor, u: Tensor) -> Tensor: ...
    def second(self, grad: Tensor, u: Tensor) -> Tensor: ...


def activate(u: Tensor, activation: Activation) -> Tensor:
    """Returns `activation.of(u)`."""
    return _Activate.apply(u, activation)


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, activation: Activation) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(u)
        return activation.of(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return _ActivateGradient.apply(grad, *ctx.saved_tensors, ctx.activation), None


class _ActivateGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, u: Tensor, activation: Activation) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(grad, u)
        return activation.backward(grad, u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple:
        grad, u = ctx.saved_tensors
        return ctx.activation.backward(v, u), ctx.activation.second(v * grad, u), None


def norm(x: Tensor, eps: float) -> Tensor:
    """Normalizes rows, (..., D), to mean 0 and variance 1."""
    return _Norm.apply(x, eps)


class _Norm(torch.autograd.Function):
    """y = r (x - mean), r = (variance + eps)^-1/2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        y, mean, r = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return _NormGradient.apply(grad, *ctx.saved_tensors), None


class _NormGradient(torch.autograd.Function):
    """dx = r P(g), P(g) = g - <g> - y <g y>, where <> is the mean of a row.

    P is symmetric, and d<v, r P(g)>/dx = -r [r P(<v y> g + <g y> v) + <v dx> y].
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, *of_x: Tensor) -> Tensor:
        ctx.save_for_backward(g, *of_x)
        return _pull_back(g, *of_x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple:
        g, *of_x = ctx.saved_tensors
        x, mean, r = of_x
        y = (x - mean).mul_(r)
        mixed = torch.addcmul(_mean(g * y) * v, _mean(v * y), g)
        along_y = _mean(v * _pull_back(g, *of_x))
        dx = _pull_back(mixed, *of_x).addcmul_(along_y, y).mul_(-r)
        return _pull_back(v, *of_x), dx, None, None


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=-1, keepdim=True)


def _pull_back(g: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """Returns r P(g)."""
    return torch.ops.aten.native_layer_norm_backward(
        g.contiguous(), x, x.shape[-1:], mean, r, None, None, [True, False, False]
    )[0]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries (..., Q, D), keys (..., K, D) and values (..., K, E) → (..., Q, E).

    The softmax scale is in the queries. Computed in float32 at least.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    return _Attend.apply(*(x.to(dtype).contiguous() for x in (q, k, v))).to(q.dtype)


class _Attend(torch.autograd.Function):
    """out = P v, P = softmax(q k^T)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        p = (q @ k.mT).softmax(dim=-1)
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return _AttendGradient.apply(grad, *ctx.saved_tensors)


class _AttendGradient(torch.autograd.Function):
    """With J = J^T the softmax' Jacobian, J x = P * (x - <P x>), and g the gradient of out:

    dv = P^T g,  dS = J dP,  dP = g v^T,  dq = dS k,  dk = dS^T q
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> tuple:
        ctx.save_for_backward(g, q, k, v, p)
        ds = _softmax_gradient(g @ v.mT, p)
        return ds @ k, ds.mT @ q, p.mT @ g

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_dq: Tensor, of_dk: Tensor, of_dv: Tensor) -> tuple:
        g, q, k, v, p = ctx.saved_tensors
        dp = g @ v.mT
        ds = _softmax_gradient(dp, p)
        of_ds = (of_dq @ k.mT).add_(q @ of_dk.mT)
        of_dp = _softmax_gradient(of_ds, p)
        # P is in dv, and twice in dS = P * (dP - <P dP>).
        of_p = (g @ of_dv.mT).addcmul_(of_ds, dp - _row_sum(dp, p))
        of_p.addcmul_(dp, _row_sum(of_ds, p), value=-1)
        of_s = _softmax_gradient(of_p, p)
        return (
            (p @ of_dv).add_(of_dp @ v),
            (of_s @ k).add_(ds @ of_dk),
            (of_s.mT @ q).add_(ds.mT @ of_dq),
            of_dp.mT @ g,
            None,
        )


def _row_sum(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1, keepdim=True)


def _softmax_gradient(grad: Tensor, p: Tensor) -> Tensor:
    return torch._softmax_backward_data(grad, p, -1, p.dtype)
