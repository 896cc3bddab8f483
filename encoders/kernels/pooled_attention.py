"""Attention of one query to many rows, whose keys and values nobody else needs.

    softmax(q (W_k x + b_k)) (W_v x + b_v) = W_v (softmax((q W_k) x) x) + b_v

for each head: the query goes back through the keys' projection, the rows are pooled before the
values'. b_k adds the same to all scores, which softmax does not see, and the weights' sum is one.
So the projections cost what they cost for one row instead of N: too little to save by half
precision, which would lose more digits than in the plain order.

Shapes: B images, N rows, D width, H heads, E output size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

WeightAndBias = tuple[Tensor, Tensor]  # (out, D), (out,)


class PooledAttention:
    """Queries (B, D) and rows (B, N, D) → (B, E).

    Args:
        projections: of queries, keys and values; the softmax scale is added here.
        out: of what the heads return.
        heads: H.
        dtype: of the products; float32 at least.
    """

    def __init__(
        self,
        projections: Sequence[WeightAndBias],
        out: WeightAndBias,
        heads: int,
        dtype: torch.dtype,
    ) -> None:
        self.heads, self.dtype = heads, torch.promote_types(dtype, torch.float32)
        dtype = self.dtype
        (q_weight, q_bias), (k_weight, _), (v_weight, v_bias) = projections
        width = q_weight.shape[1]
        scale = (width // heads) ** -0.5
        self.q_weight = (scale * q_weight.detach().double()).to(dtype)
        self.q_bias = (scale * q_bias.detach().double()).to(dtype)
        self.k_weight = k_weight.detach().to(dtype).reshape(heads, -1, width)
        self.v_weight = v_weight.detach().to(dtype).reshape(heads, -1, width)
        weight, bias = (tensor.detach() for tensor in out)
        self.out_weight = weight.to(dtype)
        self.out_bias = (bias.double() + weight.double() @ v_bias.detach().double()).to(dtype)

    def every(self, x: Tensor) -> Tensor:
        """As if each row were the query: rows (B, N, D) → (B, N, E), in the plain order."""
        x = x.to(self.dtype)

        def split(rows: Tensor) -> Tensor:  # (B, N, D) → (B, H, N, D/H)
            return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q = split(F.linear(x, self.q_weight, self.q_bias))
        k, v = (split(F.linear(x, w.flatten(0, 1))) for w in (self.k_weight, self.v_weight))
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0)  # scaled by the weights
        return F.linear(out.transpose(1, 2).flatten(2), self.out_weight, self.out_bias)

    def __call__(self, query: Tensor, x: Tensor) -> Tensor:
        query, x = query.to(self.dtype), x.to(self.dtype)
        q = F.linear(query, self.q_weight, self.q_bias)  # (B, D)
        q = q.view(len(x), self.heads, -1).transpose(0, 1)  # (H, B, D/H)
        q = (q @ self.k_weight).transpose(0, 1)  # (B, H, D)
        weights = (q @ x.transpose(1, 2)).softmax(dim=-1)  # (B, H, N)
        pooled = (weights @ x).transpose(0, 1)  # (H, B, D)
        out = (pooled @ self.v_weight.transpose(1, 2)).transpose(0, 1)  # (B, H, D/H)
        return F.linear(out.flatten(1), self.out_weight, self.out_bias)
