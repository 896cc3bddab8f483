"""RAdam under the import path and with the arguments that other people's files use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["RAdam"]


class RAdam(torch.optim.RAdam):
    """Adam with a rectified variance (Liu et al., arXiv 1908.03265, algorithm 2).

    Its authors shrink the weights directly, as AdamW does; torch's default would add the decay to
    the gradient.

    Args:
        params, lr, betas, eps, weight_decay: as torch.optim takes them.
        degenerated_to_sgd: whether the first steps, whose variance cannot be rectified, are steps
            with momentum.

    Raises:
        ValueError: `degenerated_to_sgd` is off.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        degenerated_to_sgd: bool = True,
    ) -> None:
        if not degenerated_to_sgd:
            raise ValueError("degenerated_to_sgd is False; only True, the algorithm's, is there")
        super().__init__(params, lr, betas, eps, weight_decay, decoupled_weight_decay=True)
