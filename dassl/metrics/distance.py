"""Distance matrices. Shapes: M and N items, D features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dassl.utils.errors import not_one_of

METRICS = ("euclidean", "cosine")


def compute_distance_matrix(input1: Tensor, input2: Tensor, metric: str = "euclidean") -> Tensor:
    """Computes the distances of all pairs of rows.

    Args:
        input1: (M, D).
        input2: (N, D).
        metric: "euclidean" (SQUARED, as in the public implementation) or "cosine".

    Returns:
        (M, N).

    Raises:
        ValueError: unknown metric, or shapes that do not fit.
    """
    if metric not in METRICS:
        raise ValueError(not_one_of("metric", metric, METRICS))
    if input1.dim() != 2 or input2.dim() != 2 or input1.shape[1] != input2.shape[1]:
        raise ValueError(
            f"input1 is {tuple(input1.shape)} and input2 is {tuple(input2.shape)}; expected "
            "(M, D) and (N, D) with the same D"
        )
    if metric == "cosine":
        return cosine_distance(input1, input2)
    return euclidean_squared_distance(input1, input2)


def euclidean_squared_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """Computes |a|^2 + |b|^2 - 2ab for all rows a of (M, D) and b of (N, D), shape (M, N)."""
    norm1 = input1.pow(2).sum(dim=1, keepdim=True)  # (M, 1)
    norm2 = input2.pow(2).sum(dim=1)  # (N)
    # Rounding can push the distance of equal rows just below zero.
    return torch.clamp(norm1 + norm2 - 2 * input1 @ input2.t(), min=0)


def cosine_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """Computes 1 - cos(a, b) for all rows a of (M, D) and b of (N, D), shape (M, N)."""
    return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).t()
