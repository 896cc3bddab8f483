"""Prompts → text features: CLIP's frozen text tower, computing only what is needed.

Of the 77 positions of each prompt, most do not matter, and of the rest most are the same for all
classes. `prompt_tree` says which tokens are needed and which see each other; here they go
through the tower, all prompts together:

    context vectors ──┐
                      ├─ rows ─ block 1 ─ block 2 ─ ... ─ last block ─ norm, projection ─ features
    constant tokens ──┘           │          │                │
                             keys and values of          end tokens'
                             frozen tokens [SOS]         rows only

- One prompt beginning, one computation: the start token's keys and values once for ever, the
  context's once a step (CoOp) or once an image (CoCoOp), also a word that several names begin with.
- No padding: a layer's products run over one list of rows. Attention runs in tiles of whole
  branches (`kernels.tree_attention`).
- In the last block only end tokens have a query, an attention output and an MLP.
- Constant tokens enter the first block with queries, keys and values computed once.
- Norms, scales and activations fold into the frozen weights, and the backward pass computes no
  weight gradient (`kernels.frozen_linear`).
- Where memory is short, images x classes go through in chunks, which the backward pass recomputes.

All this is exact: numbers differ from the plain tower's by rounding alone.

Shapes: G groups that differ in their context (1 for CoOp, one per image for CoCoOp), V context
vectors, C classes, T rows (tokens), F frozen tokens, D width, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dassl.utils.errors import ConfigError
from dassl.utils.memory import free_memory
from encoders.kernels import second_order
from encoders.kernels.folding import Folded, made_to_last
from encoders.kernels.frozen_linear import FrozenBlock
from encoders.kernels.tree_attention import attend
from encoders.openai import CLIP
from encoders.prompt_tree import ForkedTree, PackedRows, PromptTree, learned_token
from encoders.tokens import tokenizer_of
from encoders.tower import FrozenTower, without_autocast

# Share of the free memory that a chunk may take. Chunks change results by rounding alone.
MEMORY_SHARE = 0.5
# Rows at a time where no gradient is needed. On a CPU 1,024 fit the cache: 10% faster than 4,096.
INFERENCE_ROWS = {"cpu": 1024, "cuda": 65536}


class TextEncoder(nn.Module):
    """CLIP's text tower on context vectors and tokens. It takes the tower's weights as frozen.

    Args:
        clip_model: gives the transformer, positions, final norm and projection.
        chunk: tokens encoded at a time, 0: as memory allows. Bounds memory, changes no number.
        backend: who multiplies, a key of `gemm.BACKENDS`; None: the default.
    """

    def __init__(self, clip_model: CLIP, chunk: int = 0, backend: str | None = None) -> None:
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.token_embedding = clip_model.token_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.tokenizer = tokenizer_of(clip_model)
        self.chunk = chunk
        self.folded = Folded.shared_by(clip_model, backend)
        self._limits: dict[tuple, int] = {}  # rows that fit into memory
        self._rows_at_once = 0  # of the latest call

    @property
    def dtype(self) -> torch.dtype:
        return self.text_projection.dtype

    def forward(
        self,
        context: Tensor,
        tree: PromptTree | Tensor,
        deep: Tensor | None = None,
        own: Tensor | None = None,
    ) -> Tensor:
        """Encodes the prompts of a tree with the given context vectors.

        Args:
            context: (G, V, D) learned vectors, without positions; V as the tree says.
            tree: C prompts. Or, for prompts of any making: `context` is then (N, L, D), their
                embeddings, and this (N,), the position of each end token, or (N, L), token ids.
            deep: (J, V, D) learned vectors of deeper blocks: those of j take the place of what
                block j + 1 made of the context, so that all blocks up to J + 1 have their own.
            own: (C * V, D), if and only if the tree is a `ForkedTree`: V vectors of each prompt's
                own, which take the place of what its first `depth` blocks made of the context.

        Returns:
            (G, C, E) features, not normalized, or (N, E). Gradients reach all learned vectors.

        Raises:
            ConfigError: there are not so many blocks, or not V vectors for each.
        """
        if isinstance(tree, Tensor):
            return self._encode_embeddings(context, tree)
        tower = self.folded.get(self.parameters(), self.dtype, self._fold)
        deeper: Sequence[Tensor | None] = tower.deep_vectors(deep, context.shape[1])
        if isinstance(tree, ForkedTree):
            deeper = tower.own_vectors(own, tree, deeper)
        learned = (context, deep, own)
        grad = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in learned)
        limit = self.chunk or self._free_rows(tower, grad)
        rows = tree.rows(limit, context.device, tower.dtype)
        groups = max(1, limit // rows[0].n_rows)  # in a chunk
        self._rows_at_once = rows[0].n_rows * min(groups, len(context))
        chunks = context.split(groups)
        recompute = grad and len(chunks) * len(rows) > 1

        twice = second_order.is_wanted()

        def compute(part: Tensor, some: PackedRows) -> Tensor:
            with second_order.twice_differentiable(twice):  # also when it is computed again
                return tower.run(part, some, tree, deeper)

        def run(part: Tensor, some: PackedRows) -> Tensor:
            if recompute:
                # No random state to keep: nothing is drawn, and a graph cannot read it.
                return checkpoint(
                    compute, part, some, use_reentrant=False, preserve_rng_state=False
                )
            return compute(part, some)

        # The dtype is decided here and nowhere else: autocast would cast products a second time.
        with without_autocast(context):
            parts = [torch.cat([run(part, some) for some in rows], dim=1) for part in chunks]
            features = torch.cat(parts)  # (G, unique prompts, E)
        return features.index_select(1, tree.order_on(features.device))

    def shrink(self) -> bool:
        """Takes half as many tokens at a time from now on, which changes numbers by rounding alone.

        Returns:
            False if it cannot: `chunk` says how many, or it is one prompt already.
        """
        half = max(1, self._rows_at_once // 2)
        limits = {key: min(limit, half) for key, limit in self._limits.items()}
        if self.chunk or limits == self._limits:
            return False
        self._limits = limits
        return True

    def _replicate_for_data_parallel(self) -> TextEncoder:
        raise ConfigError(
            "our text encoder runs on one GPU: leave out nn.DataParallel, or type "
            "CUDA_VISIBLE_DEVICES=0 before the command"
        )

    def _encode_embeddings(self, prompts: Tensor, eot: Tensor) -> Tensor:
        if eot.dim() == 2:
            eot = self.tokenizer.ends(eot)
        n, length, width = prompts.shape
        starts = range(0, n * length, length)
        ids = [range(start, start + end + 1) for start, end in zip(starts, eot.tolist())]
        tree = PromptTree([[learned_token(i) for i in row] for row in ids])
        return self(prompts.reshape(1, n * length, width), tree)[0]

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Encodes token ids (N, L) without gradients: (N, E) features, not normalized."""
        ends = self.tokenizer.ends(tokens).tolist()
        sequences = [row[: end + 1] for row, end in zip(tokens.tolist(), ends)]
        with torch.no_grad():
            nothing = self.positional_embedding.new_empty(1, 0, self.ln_final.weight.shape[0])
            return self(nothing, PromptTree(sequences, freeze=False))[0]

    def _fold(self, dtype: torch.dtype, backend: str) -> _TextTower:
        return _TextTower(self, dtype, backend)

    def _free_rows(self, tower: _TextTower, grad: bool) -> int:
        """Returns how many rows memory holds, asked once: chunks must not change on the way."""
        key = (tower.positions.device, tower.stream, grad)
        if key not in self._limits:
            self._limits[key] = tower.free_rows(grad)
        return self._limits[key]


class _Constants:
    """What a list of prompts needs again and again, whatever the context."""

    def __init__(self, frozen: list[Tensor]) -> None:
        self.frozen = frozen  # (F, 2 D) keys and values of the frozen tokens, in each block
        self.first: WeakKeyDictionary[PackedRows, tuple[Tensor, Tensor]] = WeakKeyDictionary()


class _TextTower(FrozenTower):
    """The text tower with folded weights.

    Args:
        encoder: gives the weights.
        dtype: of the products.
        backend: a key of `gemm.BACKENDS`.
    """

    def __init__(self, encoder: TextEncoder, dtype: torch.dtype, backend: str) -> None:
        transformer, projection = encoder.transformer, encoder.text_projection
        super().__init__(transformer, encoder.ln_final, projection, encoder.dtype, dtype, backend)
        last = transformer.resblocks[-1]
        self.blocks.append(FrozenBlock(last, dtype, backend, split_query=True))
        self.tokens = encoder.token_embedding.weight.detach()
        self.positions = encoder.positional_embedding.detach()
        self.constants: WeakKeyDictionary[PromptTree, _Constants] = WeakKeyDictionary()

    def own_vectors(
        self, own: Tensor | None, tree: ForkedTree, deep: Sequence[Tensor | None]
    ) -> Sequence[Tensor | None]:
        """Returns what enters between blocks, as `_run_blocks` takes it; (C * V, D) `own` last.

        Raises:
            ConfigError: the tower has no block behind the tree's first ones.
        """
        if not 1 <= tree.depth < self.n_blocks:
            raise ConfigError(
                f"vectors of each class's own enter behind block {tree.depth}, but this tower has "
                f"{self.n_blocks} blocks: set 1 to {self.n_blocks - 1}"
            )
        assert own is not None and len(own) == tree.n_cls * tree.n_vectors
        assert len(deep) < tree.depth
        return (*deep, *[None] * (tree.depth - 1 - len(deep)), own.to(self.stream))

    def run(
        self,
        context: Tensor,
        rows: PackedRows,
        tree: PromptTree,
        deep: Sequence[Tensor | None] = (),
    ) -> Tensor:
        """(G, V, D) context, and what `_run_blocks` takes → (G, prompts in `rows`, E)."""
        groups, frozen = len(context), self._constants(tree).frozen
        x = context.index_select(1, rows.vector) + self.positions[rows.vector_position]
        x = x.to(self.stream)  # (G, rows of learned vectors, D)
        qkv = self._first_qkv(x)
        first_x, first_qkv = self._constant_rows(rows, tree)  # (other rows, D), (other rows, 3 D)
        x = torch.cat([x, first_x.expand(groups, -1, -1)], dim=1)  # (G, T, D)
        qkv = torch.cat([qkv, first_qkv.expand(groups, -1, -1)], dim=1)  # (G, T, 3 D)
        x = self._run_blocks(x, qkv, rows, frozen, deep)  # (G, prompts, D)
        return self.project(x)  # (G, prompts, E)

    def _run_blocks(
        self,
        x: Tensor,
        qkv: Tensor,
        rows: PackedRows,
        frozen: list[Tensor],
        deep: Sequence[Tensor | None] = (),
        keep: list | None = None,
    ) -> Tensor:
        """Takes rows (G, T, D) through all blocks and returns those of the end tokens.

        Args:
            x: the rows.
            qkv: (G, T, 3 D) their queries, keys and values in the first block.
            rows: where they stand.
            frozen: keys and values of frozen tokens in each block.
            deep: (V, D), the context of block 2, of block 3, …; None: it stays. With the last one
                the rows fork, if they do.
            keep: if given, takes the end tokens' keys and values in each block.
        """
        width = x.shape[-1]
        for i, block in enumerate(self.blocks[:-1]):
            if i > 0:
                qkv = block.qkv(block.norm(x))
            if keep is not None:
                keep.append(qkv[0, rows.end_rows, width:])
            a = attend(None, qkv, frozen[i], rows, rows.tiles, self.heads)
            vectors = deep[i] if i < len(deep) else None
            if vectors is None:
                x = block.mlp(x + block.out(a))
                continue
            learned = len(rows.vector)  # what the block makes of them is not needed
            x = block.mlp(x[:, learned:] + block.out(a[:, learned:]))
            if rows.fork is not None and i + 1 == len(deep):
                x = x.index_select(1, rows.fork.source)
                rows = rows.fork.rows
            entering = vectors.index_select(0, rows.vector).expand(len(x), -1, -1)
            x = torch.cat([entering, x], dim=1)
        block = self.blocks[-1]
        normed = block.norm(x)
        kv = block.kv(normed)  # (G, T, 2 D)
        if keep is not None:
            keep.append(kv[0, rows.end_rows])
        q = block.q(normed.index_select(1, rows.end_rows))  # (G, prompts, D)
        a = attend(q, kv, frozen[-1], rows, rows.end_tiles, self.heads)
        return block.mlp(x.index_select(1, rows.end_rows) + block.out(a))

    def _constants(self, tree: PromptTree) -> _Constants:
        if tree not in self.constants:
            with made_to_last():
                self.constants[tree] = _Constants(self._frozen(tree))
        return self.constants[tree]

    def _frozen(self, tree: PromptTree) -> list[Tensor]:
        """Returns keys and values of a tree's frozen tokens in each block, (F, 2 D)."""
        nothing = [self.positions.new_empty(0, 2 * self.positions.shape[1], dtype=self.dtype)]
        nothing = nothing * len(self.blocks)
        if not tree.frozen:
            return nothing
        # Each frozen token as the end of a prompt of its own.
        ends = PromptTree(tree.frozen, freeze=False)
        (rows,) = ends.rows(10**9, self.positions.device, self.dtype)
        x, qkv = self._embed(rows)
        keep: list[Tensor] = []
        self._run_blocks(x[None], qkv[None], rows, nothing, keep=keep)
        return keep

    def _constant_rows(self, rows: PackedRows, tree: PromptTree) -> tuple[Tensor, Tensor]:
        """Returns what enters the first block at constant tokens, and its projections."""
        first = self._constants(tree).first
        if rows not in first:
            with made_to_last():
                first[rows] = self._embed(rows)
        return first[rows]

    def _embed(self, rows: PackedRows) -> tuple[Tensor, Tensor]:
        """Constant tokens' embeddings (n, D) and queries, keys and values (n, 3 D)."""
        x = (self.tokens[rows.token] + self.positions[rows.token_position]).to(self.stream)
        return x, self._first_qkv(x)

    def _first_qkv(self, x: Tensor) -> Tensor:
        """Queries, keys and values of the first block (unless it is the last as well)."""
        block = self.blocks[0]
        return block.qkv(block.norm(x)) if len(self.blocks) > 1 else x[..., :0]

    def free_rows(self, grad: bool) -> int:
        """Returns how many rows MEMORY_SHARE of the free memory holds."""
        device = self.positions.device
        width = self.positions.shape[1]
        # What a row keeps in a block: x twice, q, k, v and attention weights, the MLP's 4 D
        size = 2 * self.stream.itemsize + 10 * self.dtype.itemsize
        kept = width * size * (len(self.blocks) + 1 if grad else 2)
        rows = max(1, int(MEMORY_SHARE * free_bytes(device)) // kept)
        return rows if grad else min(rows, INFERENCE_ROWS.get(device.type, 4096))


def free_bytes(device: torch.device) -> int:
    """Returns the free memory of a device, with what torch holds of it unused; see `free_memory`
    for a CPU."""
    if device.type != "cuda":
        return free_memory()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
