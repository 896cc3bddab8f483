"""What CLIP's text tower and its vision transformer have in common, with folded weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from dassl.utils.errors import ConfigError
from encoders.kernels.folding import fold_norm
from encoders.kernels.frozen_linear import FrozenBlock, FrozenLinear, norm


class FrozenTower:
    """Residual blocks, and the norm and projection behind them; a subclass runs the last block.

    Args:
        transformer: clip's Transformer.
        last_norm: what follows the last block.
        projection: (D, E), behind the norm.
        stream: precision of the residual stream; float32 at least, as most of what half precision
            loses is lost in its sums.
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
        self.dtype, self.stream = dtype, torch.promote_types(stream, torch.float32)
        self.n_blocks = len(transformer.resblocks)
        self.heads = transformer.resblocks[0].attn.num_heads
        self.blocks = [FrozenBlock(block, dtype, backend) for block in blocks]
        full = torch.promote_types(dtype, torch.float32)  # few rows: precision costs nothing here
        self.head = FrozenLinear(*fold_norm(last_norm, projection.t(), None), full, backend)
        self.eps = last_norm.eps

    def deep_vectors(self, deep: Tensor | None, n: int) -> tuple[Tensor, ...]:
        """Returns the learned vectors of each deeper block as they enter the residual stream.

        Args:
            deep: (J, n, D), for blocks 2 to J + 1; None: there are none.
            n: how many vectors the first block has.

        Raises:
            ConfigError: there are not so many blocks, or not `n` vectors for each.
        """
        if deep is None:
            return ()
        if len(deep) >= self.n_blocks:
            raise ConfigError(
                f"there are learned vectors for {len(deep) + 1} blocks, but this tower has "
                f"{self.n_blocks}: set a smaller prompt depth"
            )
        if deep.shape[1] != n:
            raise ConfigError(
                f"the first block has {n} learned vectors and the deeper ones {deep.shape[1]}: "
                "deep prompts take the place of the vectors before them, one by one"
            )
        return deep.to(self.stream).unbind()

    def project(self, x: Tensor) -> Tensor:
        """(..., D) → features (..., E), not normalized; float32 at least."""
        return self.head(norm(x, self.eps))


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Inside, autocast leaves products on the device of `x` in the precision they are given."""
    return torch.autocast(x.device.type, enabled=False)


def normalize(features: Tensor) -> Tensor:
    """Scales the last dimension to length 1, in float32 at least."""
    features = features if features.dtype == torch.float64 else features.float()
    return features / features.norm(dim=-1, keepdim=True)
