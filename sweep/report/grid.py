"""Tables from records, before they are printed: rows, columns and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweep.plan.recipes import PAPER_NAMES, Method
from sweep.plan.tables import Table
from sweep.report.published import AVERAGE, paper_value
from sweep.report.records import samples_of, versions_of
from sweep.report.stats import Value, average_value, harmonic_value, value

BASE2NEW_NOTES = (
    "H: harmonic mean of the seed-averaged base and new accuracy; its spread is that of the seeds.",
)


@dataclass(frozen=True)
class Row:
    """Labels (group and method, or method alone) and values by column; absent: not applicable."""

    labels: tuple[str, ...]
    values: dict[str, Value]


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
    notes: tuple[str, ...] = field(default=())
    links: tuple[tuple[str, str], ...] = field(default=())

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


class _Source:
    """The values of a table's cells."""

    def __init__(self, table: Table, output: Path) -> None:
        self.table = table
        self.cells = table.cells()
        self.by_key = {(c.method, c.dataset, c.part, c.shots, c.backbone): c for c in self.cells}
        self.samples = {id(cell): samples_of(cell, output) for cell in self.cells}

    def value(
        self, method: Method, dataset: str, part: str, shots: int, backbone: str, split: str
    ) -> Value | None:
        """Returns one cell's value with the paper's; None if the table has no such cell."""
        cell = self.by_key.get((method, dataset, part, shots, backbone))
        if cell is None:
            return None
        paper = self.paper(method, backbone, dataset_name(dataset), shots, split)
        return value(self.samples[id(cell)], len(cell.runs), paper, exact=not method.learns)

    def paper(
        self, method: Method, backbone: str, dataset: str, shots: int, split: str
    ) -> float | None:
        shots = shots if method.learns else 0
        return paper_value(self.table.published, method.label, backbone, dataset, shots, split)


def dataset_name(dataset: str) -> str:
    """Returns the name in the papers' tables."""
    return PAPER_NAMES.get(dataset, dataset)


def build(table: Table, output: Path) -> Grid:
    """Returns a table from the records below a sweep's output folder.

    Raises:
        MixedRecordsError: records of one cell differ in more than the seed.
    """
    source = _Source(table, output)
    heads, columns, rows = _LAYOUTS[table.layout](source)
    notes = [*(BASE2NEW_NOTES if table.layout == "base2new" else ()), *table.notes]
    if table.setting.opts:
        but = "; the paper's were not" if table.published else ""
        notes.append(f"All runs were made with {' '.join(table.setting.opts)}{but}.")
    grid = Grid(table.name, table.title, heads, columns, rows)
    notes += _compare_notes(grid)
    if grid.missing:
        total = len([v for v in grid.values() if not v.text])
        notes.append(f"{grid.missing} of {total} values are missing or lack a seed.")
    notes += versions_of(source.cells, output)
    return Grid(table.name, table.title, heads, columns, rows, tuple(notes))


def _compare_notes(grid: Grid) -> list[str]:
    if not grid.compared:
        return []
    return [
        "Mean and sample standard deviation over the seeds. A difference from the paper is within "
        "the spread (green) if |difference| <= t * s * sqrt(1/n + 1/3): 95%, the paper's three "
        "seeds taken to spread like ours; without seeds, within 0.1 points."
    ]


Layout = tuple[tuple[str, ...], tuple[str, ...], tuple[Row, ...]]


def _base2new(source: _Source) -> Layout:
    setting = source.table.setting
    parts = [p for p in ("base", "new") if p in setting.parts]
    columns = [*parts, "H"] if len(parts) == 2 else parts
    columns += ["all"] if "all" in setting.parts else []
    by_dataset = {
        (dataset, method): _halves(source, method, dataset, columns)
        for dataset in setting.datasets
        for method in setting.methods
    }
    rows = []
    if len(setting.datasets) > 1:
        for method in setting.methods:
            each = [by_dataset[dataset, method] for dataset in setting.datasets]
            averages = _average_halves(source, method, each)
            rows.append(Row((AVERAGE, method.label), averages))
    for (dataset, method), values in by_dataset.items():
        rows.append(Row((dataset_name(dataset), method.label), values))
    return ("data set", "method"), tuple(columns), tuple(rows)


def _halves(
    source: _Source, method: Method, dataset: str, columns: Sequence[str]
) -> dict[str, Value]:
    setting = source.table.setting
    values = {}
    for part in columns:
        place = (method, dataset, part, setting.shots[0], setting.backbone)
        found = source.value(*place, split=part)
        if found is not None:
            values[part] = found
    if "H" in columns and {"base", "new"} <= values.keys():
        name = dataset_name(dataset)
        paper = source.paper(method, setting.backbone, name, setting.shots[0], "H")
        values["H"] = harmonic_value(values["base"], values["new"], paper)
    return values


def _average_halves(
    source: _Source, method: Method, each: Sequence[dict[str, Value]]
) -> dict[str, Value]:
    setting = source.table.setting

    def paper(split: str) -> float | None:
        return source.paper(method, setting.backbone, AVERAGE, setting.shots[0], split)

    values = {
        part: average_value([v[part] for v in each], paper(part)) for part in each[0] if part != "H"
    }
    if {"base", "new"} <= values.keys():
        values["H"] = harmonic_value(values["base"], values["new"], paper("H"))
    return values


def _transfer(source: _Source) -> Layout:
    table, setting = source.table, source.table.setting
    names = [setting.source, *setting.datasets]
    several = len(table.backbones) > 1
    rows = []
    for backbone in table.backbones or (setting.backbone,):
        for method in setting.methods:
            values = {}
            for dataset in names:
                part = "source" if dataset == setting.source else "target"
                place = (method, dataset, part, setting.shots[0], backbone)
                values[dataset_name(dataset)] = source.value(*place, split=part)
            targets = [values[dataset_name(d)] for d in setting.datasets]
            paper = source.paper(method, backbone, AVERAGE, setting.shots[0], "target_average")
            values[AVERAGE] = average_value(targets, paper)
            labels = (backbone, method.label) if several else (method.label,)
            rows.append(Row(labels, values))
    heads = ("backbone", "method") if several else ("method",)
    return heads, (*map(dataset_name, names), AVERAGE), tuple(rows)


def _shots(
    source: _Source, method: Method, dataset: str, shots: int, backbone: str
) -> Value | None:
    shots = shots if method.learns else 0
    return source.value(method, dataset, "all", shots, backbone, split="test")


def _backbones(source: _Source) -> Layout:
    table, setting = source.table, source.table.setting
    backbones = table.backbones or (setting.backbone,)
    rows = []
    for dataset in setting.datasets:
        for method in setting.methods:
            values = {b: _shots(source, method, dataset, setting.shots[0], b) for b in backbones}
            rows.append(Row((method.label,), values))
    return ("method",), backbones, tuple(rows)


def _average(source: _Source) -> Layout:
    setting = source.table.setting
    rows = []
    for method in setting.methods:
        values = {
            dataset_name(d): _shots(source, method, d, setting.shots[0], setting.backbone)
            for d in setting.datasets
        }
        rows.append(Row((method.label,), {AVERAGE: average_value(list(values.values())), **values}))
    return ("method",), (AVERAGE, *map(dataset_name, setting.datasets)), tuple(rows)


def _curves(source: _Source) -> Layout:
    setting = source.table.setting
    rows = []
    for method in setting.methods:
        for dataset in setting.datasets:
            values = {
                str(shots): _shots(source, method, dataset, shots, setting.backbone)
                for shots in (setting.shots if method.learns else (0,))
            }
            rows.append(Row((dataset_name(dataset), method.label), values))
    if len(setting.datasets) > 1:
        rows = [*_average_curves(source, rows), *rows]
    order = [AVERAGE, *map(dataset_name, setting.datasets)]
    rows.sort(key=lambda row: order.index(row.labels[0]))
    zero = ("0",) if any(not method.learns for method in setting.methods) else ()
    return ("data set", "method"), (*zero, *map(str, setting.shots)), tuple(rows)


def _average_curves(source: _Source, rows: Sequence[Row]) -> list[Row]:
    """Returns one row per method: the mean over data sets. The paper's is the mean of its cells."""
    averages = []
    for method in source.table.setting.methods:
        mine = [row for row in rows if row.labels[1] == method.label]
        values = {}
        for shots in mine[0].values:
            each = [row.values[shots] for row in mine]
            known = [v.paper for v in each if v.paper is not None]
            paper = sum(known) / len(known) if len(known) == len(each) else None
            values[shots] = average_value(each, paper)
        averages.append(Row((AVERAGE, method.label), values))
    return averages


def _words(source: _Source) -> Layout:
    return (), (), ()  # made from checkpoints, not from accuracies: see words.py


_LAYOUTS: dict[str, Callable[[_Source], Layout]] = {
    "base2new": _base2new,
    "transfer": _transfer,
    "backbones": _backbones,
    "average": _average,
    "curves": _curves,
    "words": _words,
}
