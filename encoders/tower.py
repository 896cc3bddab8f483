"""What CLIP's text tower and its vision transformer have in common, with folded weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from encoders.kernels.folding import fold_norm
from encoders.kernels.frozen_linear import FrozenBlock, FrozenLinear, norm


class FrozenTower:
    """Residual blocks, and the norm and projection behind them; a subclass runs the last block.

    Args:
        transformer: clip's Transformer.
        last_norm: what follows the last block.
        projection: (D, E), behind the norm.
        stream: precision of the residual stream.
        dtype: of the products.
        backend: a key of `gemm.BACKENDS`.
    """

    def __init__(
        self,
        transformer: Any,
        last_norm: nn.LayerNorm,
        projection: Tensor,
        stream: torch.dtype,
        dtype: torch.dtype,
        backend: str,
    ) -> None:
        *blocks, _ = transformer.resblocks
        self.dtype, self.stream = dtype, stream
        self.heads = transformer.resblocks[0].attn.num_heads
        self.blocks = [FrozenBlock(block, dtype, backend) for block in blocks]
        self.head = FrozenLinear(*fold_norm(last_norm, projection.t(), None), dtype, backend)
        self.eps = last_norm.eps

    def project(self, x: Tensor) -> Tensor:
        """(..., D) → features (..., E), not normalized."""
        return self.head(norm(x, self.eps))


def normalize(features: Tensor) -> Tensor:
    """Scales the last dimension to length 1, in float32 at least."""
    features = features if features.dtype == torch.float64 else features.float()
    return features / features.norm(dim=-1, keepdim=True)
