"""Top-k accuracy. Shapes: B batch, C classes, K the largest k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def compute_accuracy(
    output: Tensor | Sequence[Tensor], target: Tensor, topk: Sequence[int] = (1,)
) -> list[Tensor]:
    """Computes the share of items whose label is among the k highest scores.

    Args:
        output: scores (B, C); of a tuple or list, the first entry.
        target: labels (B).
        topk: the values of k; a k above C counts as C, which gives 100.

    Returns:
        One tensor of shape (1) per k, in per cent, on the device of `output` (no host transfer).

    Raises:
        ValueError: the batch is empty, or a k is below 1.
    """
    if isinstance(output, (tuple, list)):
        output = output[0]
    n_items, n_cls = output.shape
    if n_items == 0:
        raise ValueError("output has no items; the accuracy of an empty batch is not defined")
    if min(topk) < 1:
        raise ValueError(f"topk is {tuple(topk)}; every k must be 1 or more")
    ranked = output.topk(min(max(topk), n_cls), dim=1).indices  # (B, K)
    hits = ranked == target.view(-1, 1)  # (B, K)
    per_rank = hits.sum(dim=0, dtype=torch.float32)  # (K)
    return [per_rank[:k].sum(0, keepdim=True).mul(100.0 / n_items) for k in topk]
