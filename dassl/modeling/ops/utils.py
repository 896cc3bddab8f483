"""Small operations of semi-supervised methods. Shapes: B items, C classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sharpen_prob(p: Tensor, temperature: float = 2) -> Tensor:
    """Probabilities (B, C) to the power of `temperature`, normalized again."""
    p = p.pow(temperature)
    return p / p.sum(1, keepdim=True)


def reverse_index(data: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a batch and its labels in the opposite order."""
    return data.flip(0), label.flip(0)


def create_onehot(label: Tensor, num_classes: int) -> Tensor:
    """Labels (B,) → (B, C), float32."""
    return F.one_hot(label, num_classes).float()


def sigmoid_rampup(current: float, rampup_length: float) -> float:
    """exp(-5 (1 - t)^2) for t = current / rampup_length in [0, 1] (arXiv 1610.02242, section 2)."""
    if rampup_length == 0:
        return 1.0
    phase = 1 - min(max(current, 0.0), rampup_length) / rampup_length
    return math.exp(-5 * phase * phase)


def linear_rampup(current: float, rampup_length: float) -> float:
    """current / rampup_length, within [0, 1]."""
    return 1.0 if rampup_length == 0 else min(max(current / rampup_length, 0.0), 1.0)


@torch.no_grad()
def ema_model_update(model: nn.Module, ema_model: nn.Module, alpha: float) -> None:
    """Moves the parameters of `ema_model`: alpha times its own and 1 - alpha times `model`'s."""
    for own, new in zip(ema_model.parameters(), model.parameters()):
        own.mul_(alpha).add_(new, alpha=1 - alpha)


def mixup(
    x1: Tensor, x2: Tensor, y1: Tensor, y2: Tensor, beta: float, preserve_order: bool = False
) -> tuple[Tensor, Tensor]:
    """Mixes two batches and their labels (arXiv 1710.09412), one share an item, from Beta(b, b).

    Args:
        x1, x2: (B, ...).
        y1, y2: (B, C) probabilities.
        beta: b.
        preserve_order: give the first batch the larger share (arXiv 1905.02249, eq. 9).
    """
    share = torch.distributions.Beta(beta, beta).sample((len(x1),)).to(x1.device)  # (B,)
    if preserve_order:
        share = torch.max(share, 1 - share)
    of_x, of_y = share.view(-1, *[1] * (x1.dim() - 1)), share.view(-1, 1)
    return of_x * x1 + (1 - of_x) * x2, of_y * y1 + (1 - of_y) * y2
