"""Attention of packed prompts: tiles of tokens that see the shared trunk and each other.

Two ways that give the same numbers: on a CPU by hand, in two parts under one softmax, so that the
trunk's keys and values are never copied into the tiles, neither forward nor backward; elsewhere by
torch's fused kernel, which wants the copies but never holds a matrix of scores. Few rows attend to
all rows under one mask, by the fused kernel: what tiles would save is less than laying them costs.

Shapes: G groups, T rows, F frozen tokens, D width, H heads, K trunk keys, N tiles of Tq queries and
Tk keys (see `prompt_tree`). Softmax scale: already in the queries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from encoders.kernels import second_order
from encoders.prompt_tree import PackedRows, Tiles

# The kernels that take a mask, flash on a CPU alone; the first that can be used. Not cuDNN's: it
# makes a plan for each shape, and stops where it has none.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attend(
    q: Tensor | None, kv: Tensor, frozen: Tensor, rows: PackedRows, tiles: Tiles, heads: int
) -> Tensor:
    """Attends from tiles of queries to the trunk and to the rows of the same tile.

    Args:
        q: (G, Q, D) queries of `tiles`; None if they are in front of keys and values in `kv`.
        kv: (G, T, 2 D) keys and values of all rows, or (G, T, 3 D) with queries.
        frozen: (F, 2 D) keys and values of the frozen tokens.
        rows: where rows are.
        tiles: where queries are and what they see; `rows.tiles` if q is None.
        heads: H.

    Returns:
        (G, Q, D)
    """
    if second_order.is_wanted():
        return _two_part_attention(q, kv, frozen, rows, tiles, heads)[0]
    if tiles.seen is not None:
        return masked_attention(q, kv, frozen, tiles.seen, heads)
    if kv.device.type == "cpu":
        return _TwoPartAttention.apply(q, kv, frozen, rows, tiles, heads)
    return fused_attention(q, kv, frozen, rows, tiles, heads)


def masked_attention(
    q: Tensor | None, kv: Tensor, frozen: Tensor, seen: Tensor, heads: int
) -> Tensor:
    """`attend` without tiles: `seen`, (Q, F + T), says what each query sees."""
    groups, width = len(kv), frozen.shape[-1] // 2
    if q is None:
        q, kv = kv.split((width, 2 * width), dim=-1)
    if len(frozen):
        kv = torch.cat([frozen.expand(groups, -1, -1), kv], dim=1)  # (G, F + T, 2 D)
    queries = q.unflatten(-1, (heads, -1)).transpose(1, 2)  # (G, H, Q, D/H)
    k, v = kv.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    with sdpa_kernel(KERNELS):
        out = F.scaled_dot_product_attention(queries, k, v, attn_mask=seen, scale=1.0)
    return out.transpose(1, 2).flatten(2)


def _split_heads(x: Tensor, parts: int, heads: int) -> Tensor:
    """(G, S, parts * D) → (parts, G, H, S, D/H)"""
    groups, slots, width = x.shape
    return (
        x.view(groups, slots, parts, heads, width // parts // heads)
        .permute(2, 0, 3, 1, 4)
        .contiguous()
    )


def _merge_heads(x: Tensor) -> Tensor:
    """(parts, G, H, S, D/H) → (G, S, parts * D)"""
    parts, groups, heads, slots, size = x.shape
    return x.permute(1, 3, 0, 2, 4).reshape(groups, slots, parts * heads * size)


def _gather(
    q: Tensor | None, kv: Tensor, frozen: Tensor, rows: PackedRows, tiles: Tiles, heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns queries and keys and values of tiles, (G, H, slots, D/H), and those of the trunk."""
    groups, width = len(kv), frozen.shape[-1] // 2
    own = kv.index_select(1, rows.tiles.rows)  # (G, N * Tk, 2 D or 3 D)
    if len(rows.frozen_slots):
        held = frozen[rows.frozen_in_slots].expand(groups, -1, -1)
        if q is None:  # frozen tokens have no queries: what stands there is not used
            held = F.pad(held, (width, 0))
        own = own.index_copy(1, rows.frozen_slots, held)
    if q is None:
        queries, k, v = _split_heads(own, 3, heads)
    else:
        (queries,) = _split_heads(q.index_select(1, tiles.rows), 1, heads)
        k, v = _split_heads(own, 2, heads)
    trunk = kv.index_select(1, rows.trunk_rows)[..., -2 * width :]
    trunk = torch.cat([frozen[rows.trunk_frozen].expand(groups, -1, -1), trunk], dim=1)
    trunk_k, trunk_v = _split_heads(trunk, 2, heads)  # (G, H, K, D/H)
    return queries, k, v, trunk_k, trunk_v


def fused_attention(
    q: Tensor | None, kv: Tensor, frozen: Tensor, rows: PackedRows, tiles: Tiles, heads: int
) -> Tensor:
    """`attend` by scaled_dot_product_attention, with the trunk's keys repeated in each tile."""
    groups, width = len(kv), frozen.shape[-1] // 2
    batch = groups * len(tiles.mask)  # G * N
    queries, keys_values = _IntoTiles.apply(q, kv, frozen, rows, tiles)
    queries = queries.view(batch, -1, heads, width // heads).transpose(1, 2)
    k, v = keys_values.view(batch, -1, 2, heads, width // heads).permute(2, 0, 3, 1, 4)
    with sdpa_kernel(KERNELS):
        mask = tiles.mask_of(groups)[:, None]  # the same for all heads
        out = F.scaled_dot_product_attention(queries, k, v, attn_mask=mask, scale=1.0)
    out = out.transpose(1, 2).reshape(groups, -1, width)  # (G, N * Tq, D)
    return _OutOfTiles.apply(out, tiles.slots)


class _IntoTiles(torch.autograd.Function):
    """Queries (G, N * Tq, D), and keys and values of trunk and tile (G, N * (K + Tk), 2 D).

    A row is in one slot, so its gradient is read there: nothing is summed but the trunk's.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor | None, kv: Tensor, frozen: Tensor, rows: PackedRows, tiles: Tiles
    ) -> tuple[Tensor, Tensor]:
        ctx.rows, ctx.tiles, ctx.joint = rows, tiles, q is None
        queries = kv[..., : frozen.shape[-1] // 2] if q is None else q
        known = kv[..., -frozen.shape[-1] :]
        if len(frozen):
            known = torch.cat([frozen.expand(len(kv), -1, -1), known], dim=1)  # (G, F + T, 2 D)
        return queries.index_select(1, tiles.rows), known.index_select(1, rows.keys)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor, dkv: Tensor) -> tuple:
        rows, tiles = ctx.rows, ctx.tiles
        first, n_trunk = len(rows.trunk_frozen), len(rows.trunk_frozen) + len(rows.trunk_rows)
        in_tiles = dkv.view(len(dkv), len(tiles.mask), -1, dkv.shape[-1])  # (G, N, K + Tk, 2 D)
        dkv = dkv.index_select(1, rows.key_slots)  # (G, T, 2 D)
        dkv.index_add_(1, rows.trunk_rows, in_tiles[:, :, first:n_trunk].sum(dim=1))
        dq = dq.index_select(1, tiles.slots)
        own = (None, torch.cat([dq, dkv], dim=-1)) if ctx.joint else (dq, dkv)
        return *own, None, None, None


class _OutOfTiles(torch.autograd.Function):
    """(G, slots, D) → (G, Q, D): what stands in padding is left there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor) -> Tensor:
        ctx.slots, ctx.shape = slots, x.shape
        return x.index_select(1, slots)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return grad.new_zeros(ctx.shape).index_copy_(1, ctx.slots, grad), None


def _two_part_attention(
    q: Tensor | None, kv: Tensor, frozen: Tensor, rows: PackedRows, tiles: Tiles, heads: int
) -> tuple[Tensor, ...]:
    """Returns what `attend` returns, what it took out of rows, and the attention weights."""
    queries, k, v, trunk_k, trunk_v = _gather(q, kv, frozen, rows, tiles, heads)
    scores = _scores(queries, k, trunk_k, tiles.mask.shape)
    p = torch.softmax(scores.add_(tiles.mask), dim=-1)  # (G * H, N, Tq, K + Tk)
    out = _merge_heads(_weighted_sum(p, v, trunk_v)[None])
    return out.index_select(1, tiles.slots), queries, k, v, trunk_k, trunk_v, p  # out: (G, Q, D)


class _TwoPartAttention(torch.autograd.Function):
    """softmax([Q K_trunk^T, Q K_tile^T] + mask) [V_trunk, V_tile], and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor | None,
        kv: Tensor,
        frozen: Tensor,
        rows: PackedRows,
        tiles: Tiles,
        heads: int,
    ) -> Tensor:
        out, *saved = _two_part_attention(q, kv, frozen, rows, tiles, heads)
        ctx.save_for_backward(*saved)
        ctx.rows, ctx.tiles, ctx.joint, ctx.n_rows = rows, tiles, q is None, kv.shape[1]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        queries, k, v, trunk_k, trunk_v, p = ctx.saved_tensors
        rows, tiles, heads, n_trunk = ctx.rows, ctx.tiles, k.shape[1], trunk_k.shape[2]
        in_slots = grad.new_zeros(len(grad), len(tiles.rows), grad.shape[-1])
        in_slots.index_copy_(1, tiles.slots, grad)  # zero in padding
        (dout,) = _split_heads(in_slots, 1, heads)
        dp = _scores(dout, v, trunk_v, p.shape[1:])
        dscores = torch._softmax_backward_data(dp, p, -1, p.dtype)
        dq = _weighted_sum(dscores, k, trunk_k)
        dk, dtrunk_k = _transposed_sum(dscores, queries, k.shape, n_trunk)
        dv, dtrunk_v = _transposed_sum(p, dout, v.shape, n_trunk)
        own = [dq, dk, dv] if ctx.joint else [dk, dv]
        dkv = _merge_heads(torch.stack(own)).index_select(1, rows.tiles.slots)  # (G, T, ...)
        dtrunk = _merge_heads(torch.stack([dtrunk_k, dtrunk_v]))  # (G, K, 2 D)
        dtrunk = dtrunk[:, len(rows.trunk_frozen) :]
        dkv[..., -dtrunk.shape[-1] :].index_add_(1, rows.trunk_rows, dtrunk)
        if not ctx.joint:
            dq = _merge_heads(dq[None]).index_select(1, tiles.slots)
        return None if ctx.joint else dq, dkv, None, None, None, None


def _scores(a: Tensor, b: Tensor, trunk_b: Tensor, shape: torch.Size) -> Tensor:
    """a b^T of each tile and of the trunk, side by side: (G * H, N, Tq, K + Tk)."""
    n_tiles, n_queries, n_keys = shape
    groups, heads, n_trunk, size = trunk_b.shape
    batch = groups * heads
    in_trunk = torch.bmm(
        a.view(batch, -1, size), trunk_b.view(batch, n_trunk, size).transpose(1, 2)
    ).view(batch, n_tiles, n_queries, n_trunk)
    in_tile = torch.bmm(
        a.view(batch * n_tiles, n_queries, size),
        b.view(batch * n_tiles, n_keys - n_trunk, size).transpose(1, 2),
    ).view(batch, n_tiles, n_queries, n_keys - n_trunk)
    return torch.cat([in_trunk, in_tile], dim=-1)


def _weighted_sum(p: Tensor, b: Tensor, trunk_b: Tensor) -> Tensor:
    """p [trunk_b, b]: (G, H, N * Tq, D/H)."""
    groups, heads, n_trunk, size = trunk_b.shape
    batch, n_tiles, n_queries, _ = p.shape  # (G * H, N, Tq, K + Tk)
    in_trunk = torch.bmm(
        p[..., :n_trunk].reshape(batch, n_tiles * n_queries, n_trunk),
        trunk_b.view(batch, n_trunk, size),
    )
    out = torch.baddbmm(
        in_trunk.view(batch * n_tiles, n_queries, size),
        p[..., n_trunk:].reshape(batch * n_tiles, n_queries, -1),
        b.view(batch * n_tiles, -1, size),
    )
    return out.view(groups, heads, -1, size)


def _transposed_sum(p: Tensor, a: Tensor, shape: torch.Size, n_trunk: int) -> tuple[Tensor, Tensor]:
    """p^T a: what each key of a tile, (G, H, N * Tk, D/H), and of the trunk collects."""
    batch, n_tiles, n_queries, _ = p.shape
    size = a.shape[-1]
    in_trunk = p[..., :n_trunk].reshape(batch, n_tiles * n_queries, n_trunk).transpose(1, 2)
    trunk = torch.bmm(in_trunk, a.view(batch, -1, size))
    in_tile = p[..., n_trunk:].reshape(batch * n_tiles, n_queries, -1).transpose(1, 2)
    own = torch.bmm(in_tile, a.view(batch * n_tiles, n_queries, size))
    return own.view(shape), trunk.view(*shape[:2], n_trunk, size)
