"""Folding constants into frozen weights, once, and noticing when the weights have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from encoders.kernels.gemm import default_backend

T = TypeVar("T")


@contextmanager
def made_to_last() -> Iterator[None]:
    """Inside, there are no gradients, and what is made may serve a training later, also if an
    evaluation in inference mode asks for it first."""
    with torch.inference_mode(False), torch.no_grad():  # the former alone turns gradients on
        yield


class Fingerprint:
    """Tells whether tensors are still those that they were, and nobody has written to them.

    It keeps their memory alive, so that no other tensor can come to lie at the same address. What
    is written past autograd (`weight.data.add_()`) it does not see.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = [tensor.detach() for tensor in tensors]
        self._state = _state(self._tensors)

    def matches(self, tensors: Iterable[Tensor]) -> bool:
        return _state(tensors) == self._state


def _state(tensors: Iterable[Tensor]) -> list[tuple]:
    return [(t.data_ptr(), t._version, t.dtype, t.device) for t in tensors]


class Folded(Generic[T]):
    """Keeps what was folded from weights; folds anew when they, or the precision, have changed.

    Args:
        backend: a key of `gemm.BACKENDS`; None: the default.
    """

    def __init__(self, backend: str | None = None) -> None:
        self.backend = backend
        self._value: tuple[tuple, Fingerprint, T] | None = None

    @classmethod
    def shared_by(cls, module: nn.Module, backend: str | None) -> Folded:
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
            fold: called with the dtype of the products and a key of `gemm.BACKENDS`.
        """
        weights = list(weights)
        device = weights[0].device
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        how = (dtype, self.backend or default_backend(device, dtype))
        if self._value is None or self._value[0] != how or not self._value[1].matches(weights):
            self._value = None  # frees memory before more is taken
            with made_to_last():
                self._value = (how, Fingerprint(weights), fold(*how))
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
