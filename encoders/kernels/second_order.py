"""Gradients of gradients: inside `twice_differentiable`, kernels compute by what has them.

The backward passes written by hand in this folder have no gradient of their own, for speed and
memory's sake. A method that differentiates through a gradient step (MAML, arXiv 1703.03400)
computes inside what it steps along: the same rows, the same folded weights, the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
