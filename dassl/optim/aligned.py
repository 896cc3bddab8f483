"""A gradient without what works against another one."""

from __future__ import annotations

import torch
from torch import Tensor


def aligned(gradient: Tensor, along: Tensor, strength: float) -> Tensor:
    """Takes the part of a gradient that points against `along` out of it.

    ProGrad's G from its G_d and G_g (arXiv 2205.14865, section 3.2), for one parameter:

        G = G_d                                              if cos(G_d, G_g) >= 0
        G = G_d - strength (G_d . G_g / |G_g|^2) G_g         otherwise
    """
    conflict = torch.clamp((gradient * along).sum(), max=0)  # 0 where they agree
    length = (along * along).sum().clamp_min(torch.finfo(along.dtype).tiny)
    return gradient - strength * conflict / length * along
