"""Gradients of gradients: inside `twice_differentiable`, kernels compute by what has them.

The backward passes written by hand in this folder have no gradient of their own, for speed and
memory's sake. A method that differentiates through a gradient step (MAML, arXiv 1703.03400)
computes inside what it steps along: the same rows, the same folded weights, the same numbers.

torch has gradients of gradients of all that happens there. Where its own are a long chain of small
operations, they are written by hand here: a norm's are 13 instead of 59.
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
