"""What a table is: which runs it needs, and where each number stands."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweep.plan.protocols import Cell, Protocol, Setting
from sweep.plan.recipes import Method

Value = Any  # a number with its spread, as `Numbers` makes it; to a layout it is opaque


class Numbers(typing.Protocol):
    """What a layout asks for its numbers; `report/grid.py` answers from the records.

    `cell` gives a cell's number, None if the table has no such cell. `mean` over datasets and
    `harmonic`, of base and new, make numbers of others; `paper` knows the paper's for these, under
    the name that the dataset has there. `split` is the part's name in `paper/*.csv`. `words` gives
    the word nearest to each context vector that a cell's first run learned.
    """

    def cell(
        self, method: Method, dataset: str, part: str, shots: int, backbone: str, split: str
    ) -> Value | None: ...

    def paper(
        self, method: Method, dataset: str, shots: int, backbone: str, split: str
    ) -> float | None: ...

    def mean(self, values: Sequence[Value], paper: float | None = None) -> Value: ...

    def harmonic(self, base: Value, new: Value, paper: float | None = None) -> Value: ...

    def words(self, cell: Cell) -> Sequence[Value]: ...


@dataclass(frozen=True)
class Row:
    """Labels (group and method, or method alone) and values by column; absent: not applicable."""

    labels: tuple[str, ...]
    values: Mapping[str, Value]


# Names of the label columns, names of the value columns, rows.
Arrangement = tuple[tuple[str, ...], tuple[str, ...], tuple[Row, ...]]


@dataclass(frozen=True)
class Table:
    """One table or figure.

    Attributes:
        name: on the command line.
        title: what it shows.
        protocol: makes its cells.
        layout: puts their numbers into rows and columns; one of `layouts.py`.
        setting: methods, datasets, shots, backbone.
        backbones: more than the setting's, if there are several.
        published: value of the column "table" in `paper/*.csv`; empty: nothing to compare with.
        notes: what a reader should know about the comparison.
    """

    name: str
    title: str
    protocol: Protocol
    layout: Callable[[Table, Numbers], Arrangement]
    setting: Setting
    backbones: tuple[str, ...] = ()
    published: str = ""
    notes: tuple[str, ...] = ()

    @property
    def all_backbones(self) -> tuple[str, ...]:
        return self.backbones or (self.setting.backbone,)

    def cells(self) -> list[Cell]:
        """Returns the numbers of the table with the runs each needs."""
        cells: list[Cell] = []
        for backbone in self.all_backbones:
            cells += self.protocol.cells(replace(self.setting, backbone=backbone))
        return cells

    def with_setting(self, **changes: Any) -> Table:
        """Returns the table with a changed setting; None leaves a field as it is."""
        given = {key: value for key, value in changes.items() if value is not None}
        backbones = self.backbones if "backbone" not in given else ()
        return replace(self, setting=replace(self.setting, **given), backbones=backbones)
