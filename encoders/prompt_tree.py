"""Which tokens of a list of prompts have to be computed, and which of them see each other.

CLIP's text tower is causal: what happens at a token depends on the tokens up to it alone. Prompts
that begin alike therefore share the computation of their beginning, and a list of prompts is a
tree. CoOp's, with class token at the end, two context vectors V and three classes:

    [SOS] ── V1 ── V2 ─┬─ abbey ── . ── [END]
     frozen            └─ golf ─┬─ course ── . ── [END]
                                └─ ball ── . ── [END]
           └── trunk ─┘└────────── leaves ───────────┘

12 tokens instead of 3 x 77. The *trunk* is the beginning that all prompts share; a *frozen* token
has no learned vector at or before it, so it is computed once for ever. In the middle and front
position and with class-specific context the tree forks earlier; nothing else changes.

A token sees the tokens on its way back to the root. For attention, whole branches are laid into
tiles of about 32 tokens: a tile's tokens see the trunk and, under a mask, each other. (A beginning
that two tiles share is computed in both.) All other layers see one list of rows, without padding:

    rows    V1 V2 │ abbey . [END] golf course . [END] ball . [END]
    tiles   [V1 V2 abbey . [END]  –  ]   [golf course . [END] ball . [END]]   (– is padding)

Where there are few rows, one tile holds them all, and attention needs no tiles: `Tiles.seen`.

Numbers: a token id stands for itself, `learned_token(i)` for learned vector i.

Where learned vectors depend on the class from some block on (TCP, arXiv 2311.18231), the blocks
before it share a tree as above, and the others have one of C branches (`ForkedTree`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.kernels.folding import made_to_last

ALIGNED = 8  # numbers
TILE = 32  # tokens; 16 to 64 were equally fast, smaller and larger ones slower
FEW_ROWS = 64  # so many attend faster without tiles: 8% of the text side for 5 classes on a CPU

Path = tuple[int, ...]  # the tokens from the root to a token


def learned_token(index: int) -> int:
    """Returns the number that stands for a learned vector in a sequence."""
    return -1 - index


@dataclass(eq=False)
class Tiles:
    """Queries laid out in tiles.

    Q queries in N tiles of Tq slots; keys are the trunk's K and the Tk slots of the same tile.
    """

    rows: Tensor  # (N * Tq,) the query in each slot; 0 in padding
    slots: Tensor  # (Q,) the slot of each query
    mask: Tensor  # (N, Tq, K + Tk) 0 where a query sees a key, -inf elsewhere
    # (Q, F + T) the same for all frozen tokens and all rows; None: there are many
    seen: Tensor | None = None
    _masks: dict[int, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device, dtype: torch.dtype) -> Tiles:
        """Returns a copy on a device, with masks in a floating-point type."""
        seen = None if self.seen is None else _aligned(self.seen.to(device, dtype))
        rows, slots = self.rows.to(device), self.slots.to(device)
        return Tiles(rows, slots, self.mask.to(device, dtype), seen)

    def mask_of(self, groups: int) -> Tensor:
        """(G * N, Tq, K + Tk): the mask again and again, laid out as the GPU wants it."""
        if groups not in self._masks:
            with made_to_last():
                self._masks[groups] = _aligned(self.mask.repeat(groups, 1, 1))
        return self._masks[groups]


@dataclass(eq=False)
class PackedRows:
    """The tokens of some prompts as rows, and the tiles they attend in.

    T rows: first those of learned vectors, then those of constant tokens. F frozen tokens.
    """

    vector: Tensor  # (rows of learned vectors,) which vector
    vector_position: Tensor
    token: Tensor  # (rows of constant tokens,) token id
    token_position: Tensor
    trunk_frozen: Tensor  # (K - ...,) frozen tokens of the trunk, the first of the trunk's keys
    trunk_rows: Tensor  # (K - ...,) the trunk's other keys
    frozen_slots: Tensor  # slots that hold a frozen token (a key, no query)
    frozen_in_slots: Tensor  # which
    tiles: Tiles  # all rows
    keys: Tensor  # (N * (K + Tk),) the key in each place of a tile: frozen token, or F + row
    key_slots: Tensor  # (T,) the place of each row among them, in its own tile
    end_rows: Tensor  # (C,) the end tokens' rows
    end_tiles: Tiles  # the end tokens as queries
    n_rows: int = field(default=0)
    fork: Fork | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> PackedRows:
        """Returns a copy on a device, with masks in a floating-point type."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device)
            elif isinstance(value, Fork):
                moved[name] = Fork(value.rows.to(device, dtype), value.source.to(device))
            elif isinstance(value, Tiles):
                moved[name] = value.to(device, dtype)
        return PackedRows(**moved)


@dataclass(eq=False)
class Fork:
    """What stands in place of rows that branches have shared so far."""

    rows: PackedRows
    source: Tensor  # for each of its constant tokens, which of the constant tokens' rows before


class PromptTree:
    """The tree of a list of prompts.

    Args:
        sequences: C prompts, each from start to end token.
        freeze: treat tokens without a learned vector at or before them as constant for ever.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], freeze: bool = True) -> None:
        paths = [tuple(sequence) for sequence in sequences]
        self.n_cls = len(paths)
        self.sequences = sorted(set(paths))  # neighbours share most
        self.n_tokens = sum(map(len, self.sequences))
        place = {path: i for i, path in enumerate(self.sequences)}
        self.order = torch.tensor([place[path] for path in paths])  # (C,)
        self.frozen = self._frozen_paths() if freeze else []
        self._rows: dict[tuple, list[PackedRows]] = {}
        self._order: dict[torch.device, Tensor] = {}

    def order_on(self, device: torch.device) -> Tensor:
        """Returns (C,): which of `sequences` each prompt is."""
        if device not in self._order:
            with made_to_last():
                self._order[device] = self.order.to(device)
        return self._order[device]

    def _frozen_paths(self) -> list[Path]:
        """Returns all beginnings that hold no learned vector."""
        beginnings = set()
        for sequence in self.sequences:
            for n, token in enumerate(sequence[:-1]):  # the end token is always computed
                if token < 0:
                    break
                beginnings.add(sequence[: n + 1])
        return sorted(beginnings)

    def rows(self, limit: int, device: torch.device, dtype: torch.dtype) -> list[PackedRows]:
        """Returns the rows of all prompts, in groups of whole prompts with about `limit` rows."""
        limit = min(limit, self.n_tokens)  # one entry for all limits that are large enough
        key = (limit, device, dtype)
        if key not in self._rows:
            with made_to_last():
                parts = [self._build(part).to(device, dtype) for part in self._split(limit)]
            self._rows[key] = parts
        return self._rows[key]

    def _split(self, limit: int) -> list[list[Path]]:
        shared = len(_shared_beginning(self.sequences))
        parts: list[list[Path]] = []
        room = 0
        for sequence in self.sequences:
            needed = len(sequence) - shared
            if not parts or needed > room:
                parts.append([])
                room = limit - shared
            parts[-1].append(sequence)
            room -= needed
        return parts

    def _build(self, sequences: list[Path]) -> PackedRows:
        return self._pack(sequences)[0]

    def _pack(self, sequences: list[Path]) -> tuple[PackedRows, list[Path]]:
        """Returns the rows of some prompts, and the way from the root to each row."""
        trunk = _shared_beginning(sequences)
        trunk_paths = [trunk[: n + 1] for n in range(len(trunk))]
        frozen = {path: i for i, path in enumerate(self.frozen)}
        needed = {s[: n + 1] for s in sequences for n in range(len(s))} - frozen.keys()
        few = len(needed) <= FEW_ROWS
        first = [path for path in trunk_paths if path not in frozen]
        tiles = _fill_tiles(first, trunk, sequences, self.n_tokens if few else TILE)
        active = [(n, p) for n, tile in enumerate(tiles) for p in tile if p not in frozen]
        active.sort(key=lambda tile_and_path: tile_and_path[1][-1] >= 0)  # learned vectors first
        row = {key: i for i, key in enumerate(active)}
        n_vectors = sum(path[-1] < 0 for _, path in active)
        size = max(len(tile) for tile in tiles)
        in_slots = [
            (n * size + i, frozen[path])
            for n, tile in enumerate(tiles)
            for i, path in enumerate(tile)
            if path in frozen
        ]
        ends = {sequence: n for n, tile in enumerate(tiles) for sequence in tile}
        end_keys = [(ends[sequence], sequence) for sequence in sequences]
        queries = [[p if p not in frozen else None for p in tile] for tile in tiles]
        end_queries = [[p for n, p in end_keys if n == tile] for tile in range(len(tiles))]
        laid = _lay_out(queries, row, tiles, len(trunk))

        def key(tile: int, path: Path) -> int:
            return frozen[path] if path in frozen else len(frozen) + row[tile, path]

        beginning, padding = [key(0, path) for path in trunk_paths], [0] * size
        keys = [
            beginning + ([key(n, path) for path in tile] + padding)[:size]
            for n, tile in enumerate(tiles)
        ]
        end_tiles = _lay_out(
            end_queries, {key: i for i, key in enumerate(end_keys)}, tiles, len(trunk)
        )
        if few:
            place = frozen | {path: len(frozen) + i for (_, path), i in row.items()}
            laid.seen = _seen([path for _, path in active], place)
            end_tiles.seen = _seen(sequences, place)
        rows = PackedRows(
            vector=_index(-1 - path[-1] for _, path in active[:n_vectors]),
            vector_position=_index(len(path) - 1 for _, path in active[:n_vectors]),
            token=_index(path[-1] for _, path in active[n_vectors:]),
            token_position=_index(len(path) - 1 for _, path in active[n_vectors:]),
            trunk_frozen=_index(frozen[path] for path in trunk_paths if path in frozen),
            trunk_rows=_index(row[0, path] for path in trunk_paths if path not in frozen),
            frozen_slots=_index(slot for slot, _ in in_slots),
            frozen_in_slots=_index(i for _, i in in_slots),
            tiles=laid,
            keys=_index(chain.from_iterable(keys)),
            key_slots=laid.slots + len(trunk) * (laid.slots // size + 1),
            end_rows=_index(row[key] for key in end_keys),
            end_tiles=end_tiles,
            n_rows=len(active),
        )
        return rows, [path for _, path in active]


class ForkedTree(PromptTree):
    """A tree whose prompts share their beginnings in the first blocks alone.

    Behind them each prompt has learned vectors of its own in the places of the shared ones: of V
    shared vectors, number v becomes number c * V + v in prompt c.

    Args:
        sequences: C prompts, each from start to end token, as the first blocks read them.
        n_vectors: V.
        depth: how many blocks these are.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], n_vectors: int, depth: int) -> None:
        self.n_vectors, self.depth = n_vectors, depth
        super().__init__(
            [
                [token if token >= 0 else token - c * n_vectors for token in sequence]
                for c, sequence in enumerate(sequences)
            ]
        )

    def _shared(self, path: Path) -> Path:
        """Returns what the first blocks read in place of a path."""
        return tuple(
            token if token >= 0 else learned_token((-1 - token) % self.n_vectors) for token in path
        )

    def _build(self, sequences: list[Path]) -> PackedRows:
        own, own_paths = self._pack(sequences)
        first, paths = self._pack(sorted({self._shared(sequence) for sequence in sequences}))
        n_learned, n_own = len(first.vector), len(own.vector)
        place = {path: i for i, path in enumerate(paths[n_learned:])}
        source = _index(place[self._shared(path)] for path in own_paths[n_own:])
        # Rows are counted where they are most.
        return replace(first, fork=Fork(own, source), n_rows=own.n_rows)


def _shared_beginning(sequences: list[Path]) -> Path:
    """Returns how all sequences begin; of a sorted list, the first and the last differ most."""
    first, last = sequences[0], sequences[-1]
    n = 0
    while n < min(len(first), len(last)) and first[n] == last[n]:
        n += 1
    return first[:n]


def _fill_tiles(
    first: list[Path], trunk: Path, sequences: list[Path], size: int
) -> list[list[Path]]:
    """Fills tiles with the trunk's rows, then branch by branch; returns the tokens in each."""
    branches = [[s[: n + 1] for n in range(len(trunk), len(s))] for s in sequences]
    size = max(size, len(first), *map(len, branches))
    tiles = [dict.fromkeys(first)]  # a dictionary as an ordered set
    for branch in branches:
        new = [path for path in branch if path not in tiles[-1]]
        if len(tiles[-1]) + len(new) > size:
            tiles.append({})
            new = branch
        tiles[-1].update(dict.fromkeys(new))
    return [list(tile) for tile in tiles]


def _lay_out(
    queries: Sequence[Sequence[Path | None]],
    number: dict[tuple[int, Path], int],
    tiles: list[list[Path]],
    n_trunk: int,
) -> Tiles:
    """Args: the queries of each tile, their numbers, and the tokens in each tile."""
    n_queries, n_keys = max(map(len, queries)), max(map(len, tiles))
    rows = np.zeros((len(tiles), n_queries), dtype=np.int64)
    slots = np.zeros(len(number), dtype=np.int64)
    mask = np.full((len(tiles), n_queries, n_trunk + n_keys), -np.inf, dtype=np.float32)
    mask[:, :, n_trunk] = 0  # what padding sees does not matter, but it must see something
    for n, (tile, wanted) in enumerate(zip(tiles, queries)):
        slot_of = {path: i for i, path in enumerate(tile)}
        for i, path in enumerate(wanted):
            if path is None:
                continue
            rows[n, i] = number[n, path]
            slots[number[n, path]] = n * n_queries + i
            mask[n, i, n_trunk] = -np.inf
            mask[n, i, : min(len(path), n_trunk)] = 0
            own = [n_trunk + slot_of[path[:k]] for k in range(n_trunk + 1, len(path) + 1)]
            mask[n, i, own] = 0
    return Tiles(torch.from_numpy(rows.ravel()), torch.from_numpy(slots), torch.from_numpy(mask))


def _seen(queries: Sequence[Path], place: dict[Path, int]) -> Tensor:
    """Returns (Q, F + T): 0 where a query sees what stands in a place, -inf elsewhere."""
    seen = torch.full((len(queries), len(place)), -torch.inf)
    for i, path in enumerate(queries):
        seen[i, [place[path[:n]] for n in range(1, len(path) + 1)]] = 0
    return seen


def _aligned(mask: Tensor) -> Tensor:
    """Lets rows begin at multiples of 16 bytes at least, as the GPU's fused attention wants them;
    otherwise it copies the mask in each layer, once a head."""
    if mask.device.type == "cpu":
        return mask
    n_keys = mask.shape[-1]
    return F.pad(mask, (0, -n_keys % ALIGNED))[..., :n_keys]


def _index(values) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)
