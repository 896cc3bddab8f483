"""What a page consists of, as data. Texts are plain: the template escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

TALL = 60  # rows; the tables of papers have fewer


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        means: what stands in it, as a sentence; "": the heading says it.
        number: whether it holds numbers, which stand at the right.
    """

    name: str
    means: str = ""
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is shown; "": an empty cell.
        value: what it is sorted by; None: by its text.
        more: a small second line.
        change: a difference, beside `more`, with its sign.
        kind: colour of the change, or of a text without one: "good", "bad", "soft" or "".
        missing: whether something ought to stand here.
        seeds: each seed's number, shown if the reader asks.
    """

    text: str
    value: float | None = None
    more: str = ""
    change: str = ""
    kind: str = ""
    missing: bool = False
    seeds: str = ""

    @property
    def key(self) -> str:
        return self.text if self.value is None else f"{self.value:.6f}"


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted.

    Attributes:
        title: its caption.
        empty: what an empty cell means.
        folded: whether it is shown only if the reader asks.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    empty: str = ""
    folded: bool = False
    kind: ClassVar[str] = "table"

    @property
    def tall(self) -> bool:
        """Whether it scrolls in a window of its own, below its headings."""
        return len(self.rows) > TALL

    @property
    def caption(self) -> str:
        return f"{self.title} ({len(self.rows):,} rows, which scroll)" if self.tall else self.title

    @property
    def explained(self) -> list[Column]:
        return [column for column in self.columns if column.means]


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        svg: the drawing, made by `charts.py`.
        legend: label and colour's slot of what is drawn.
        width: in CSS pixels; a wider one than the window scrolls.
    """

    title: str
    svg: Markup
    legend: Sequence[tuple[str, int]] = ()
    width: int = 400
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Picture:
    """A small picture with lines below; `data` is a data URI, "" where the file cannot be read."""

    data: str
    about: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    title: str
    pictures: Sequence[Picture]
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Prompts:
    """Prompts as tokens, each a list of (kind, text); kind: "mark", "learned" or "word"."""

    title: str
    prompts: Sequence[Sequence[tuple[str, str]]]
    more: str = ""
    kind: ClassVar[str] = "prompts"


@dataclass(frozen=True)
class Code:
    """What a section lacks, in a sentence, and what to type."""

    sentence: str
    command: str = ""
    kind: ClassVar[str] = "code"


Block = Table | Chart | Gallery | Prompts | Code


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading.

    Attributes:
        about: a sentence below the heading.
        notes: sentences at the end.
        links: titles and addresses, folded, under `links_title`.
    """

    name: str
    title: str
    blocks: Sequence[Block] = ()
    about: str = ""
    notes: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()
    links_title: str = ""

    @property
    def parts(self) -> list[tuple[str, list[Block]]]:
        """Blocks, with those that may stand beside each other, charts and tables, together."""
        groups: list[tuple[str, list[Block]]] = []
        for block in self.blocks:
            kind = "beside" if isinstance(block, Chart | Table) else "below"
            if not groups or groups[-1][0] != kind:
                groups.append((kind, []))
            groups[-1][1].append(block)
        return groups


@dataclass(frozen=True)
class Page:
    title: str
    about: str
    sections: Sequence[Section] = field(default_factory=tuple)

    @property
    def has_seeds(self) -> bool:
        tables = [b for s in self.sections for b in s.blocks if isinstance(b, Table)]
        return any(cell.seeds for table in tables for row in table.rows for cell in row)
