"""Tables from records, before they are printed: rows, columns and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dassl.utils import UserError
from dassl.utils.text import counted, visible
from sweep.plan.protocols import Cell
from sweep.plan.recipes import Method, paper_name
from sweep.plan.table import Row, Table
from sweep.report.published import paper_value
from sweep.report.records import records_of, samples_of, versions_of
from sweep.report.stats import Value, average_value, harmonic_value, value
from sweep.report.words import words_of
from sweep.work.basis import data_stay
from sweep.work.folder import RunFolder
from sweep.work.kept import say_once


@dataclass(frozen=True)
class Grid:
    """A table that is ready to be printed.

    Attributes:
        heads: names of the label columns.
        columns: keys of the rows' values, in order; also their headings.
        notes: sentences below it.
        links: titles and addresses of what belongs to it, for the HTML page.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    def shown(self) -> Grid:
        """Returns the grid with texts of one line each that a terminal shows and does not obey."""
        rows = tuple(
            Row(
                tuple(map(_shown, row.labels)),
                {_shown(k): replace(v, text=_shown(v.text)) for k, v in row.values.items()},
            )
            for row in self.rows
        )
        texts = {
            name: tuple(map(_shown, getattr(self, name))) for name in ("heads", "columns", "notes")
        }
        links = tuple((_shown(title), address) for title, address in self.links)
        name, title = _shown(self.name), _shown(self.title)
        return Grid(name, title, rows=rows, links=links, **texts)

    def values(self) -> Iterator[Value]:
        for row in self.rows:
            yield from row.values.values()

    @property
    def missing(self) -> int:
        """Number of values without all of their runs."""
        return sum(not v.complete for v in self.values() if not v.text)

    @property
    def compared(self) -> bool:
        return any(v.paper is not None for v in self.values())


def _shown(text: str) -> str:
    return visible(" ".join(text.splitlines())) if text else text


class RecordedNumbers:
    """The numbers of a table from the records below an output folder; see `plan.table.Numbers`."""

    mean, harmonic = staticmethod(average_value), staticmethod(harmonic_value)

    def __init__(self, table: Table, output: Path) -> None:
        self.table, self.output = table, output
        self.cells = {
            (c.method, c.dataset, c.part, c.shots, c.backbone): (c, records_of(c, output))
            for c in table.cells()
        }

    def cell(
        self, method: Method, dataset: str, part: str, shots: int, backbone: str, split: str
    ) -> Value | None:
        if (method, dataset, part, shots, backbone) not in self.cells:
            return None
        cell, records = self.cells[method, dataset, part, shots, backbone]
        paper = self.paper(method, paper_name(dataset), shots, backbone, split)
        return value(samples_of(records), len(cell.runs), paper, exact=not method.learns)

    def paper(
        self, method: Method, dataset: str, shots: int, backbone: str, split: str
    ) -> float | None:
        shots = shots if method.learns else 0
        return paper_value(self.table.published, method.label, backbone, dataset, shots, split)

    def words(self, cell: Cell) -> Sequence[Value]:
        folder = RunFolder(cell.runs[0], self.output)
        if not cell.method.learns or folder.record() is None:
            return [Value(None, text="missing")]
        try:
            return [Value(None, text=f"{word} ({far:.4f})") for word, far in words_of(folder)]
        except UserError as error:
            say_once(f"the words of {folder.path} are missing: {error}")
            return [Value(None, text="missing")]


def build(table: Table, output: Path) -> Grid:
    """Returns a table from the records below a sweep's output folder.

    Raises:
        MixedRecordsError: records of one cell differ in more than the seed.
    """
    with data_stay():
        numbers = RecordedNumbers(table, output)
        grid = Grid(table.name, table.title, *table.layout(table, numbers))
    records = (record for _, found in numbers.cells.values() for record in found.values())
    return replace(grid, notes=(*table.notes, *_notes(table, grid), *versions_of(records)))


def _notes(table: Table, grid: Grid) -> Iterator[str]:
    if table.setting.opts:
        but = "; the paper's were not" if table.published else ""
        yield f"All runs were made with {' '.join(table.setting.opts)}{but}."
    if grid.compared:
        yield (
            "Mean and sample standard deviation over the seeds. A difference from the paper is "
            "within the spread (green) if |difference| <= t * s * sqrt(1/n + 1/3): 95%, the "
            "paper's three seeds taken to spread like ours; without seeds, within 0.1 points."
        )
    if grid.missing:
        total = len([v for v in grid.values() if not v.text])
        yield f"Missing, or without all seeds: {grid.missing} of {counted(total, 'value')}."
