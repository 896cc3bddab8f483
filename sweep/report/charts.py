"""Charts of grids for the HTML page: few-shot curves (CoOp, figure 3), bars for base and new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pages import Bars, Chart, Line, bar_chart, line_chart
from pages.colors import LIGHT
from sweep.plan.table import Row
from sweep.report.grid import Grid
from sweep.report.plots import colors_of

ACCURACY = "accuracy (%)"


def slots_of(methods: Sequence[str]) -> dict[str, int]:
    """Returns method → slot of its colour, which is the same in every chart."""
    return {method: LIGHT.index(color) for method, color in colors_of(methods).items()}


def charts(grid: Grid) -> list[Chart]:
    """Returns a grid's charts; none where there is nothing to draw."""
    if not any(value is not None and value.mean is not None for value in grid.values()):
        return []
    if "method" in grid.heads and {"base", "new"} <= set(grid.columns):
        return [bars(grid)]
    if grid.heads == ("dataset", "method") and all(name.isdigit() for name in grid.columns):
        return curves(grid)
    return []


def bars(grid: Grid) -> Chart:
    """Returns grouped bars of the first group of a base-to-new table: the average."""
    group = grid.rows[0].labels[0]
    rows = [row for row in grid.rows if row.labels[0] == group]
    return bars_of(group, rows, grid.columns)


def bars_of(title: str, rows: Sequence[Row], columns: Sequence[str]) -> Chart:
    """Returns a group of bars a column, one a row, and the seeds' spread.

    Args:
        title: what the numbers are of.
        rows: their last label is the legend's.
        columns: keys of the rows' values.
    """
    slots = slots_of([row.labels[-1] for row in rows])
    series = []
    for row in rows:
        values = [row.values.get(column) for column in columns]
        means = [None if value is None else value.mean for value in values]
        spreads = [None if value is None else value.std for value in values]
        series.append(Bars(row.labels[-1], slots[row.labels[-1]], means, spreads))
    spread = any(s for one in series for s in one.spreads)
    return bar_chart(
        title + (", mean and standard deviation over seeds" if spread else ""),
        columns,
        series,
        ACCURACY,
    )


def curves(grid: Grid) -> list[Chart]:
    """Returns few-shot curves, a chart a dataset, the average first.

    Zero-shot stands at 0 shots, as in the paper; its numbers are dashed where they are known.
    """
    slots = slots_of(list(dict.fromkeys(row.labels[1] for row in grid.rows)))
    ticks = sorted(int(column) for column in grid.columns)
    groups = list(dict.fromkeys(row.labels[0] for row in grid.rows))
    found = []
    for group in groups:
        rows = [row for row in grid.rows if row.labels[0] == group]
        lines = [line for row in rows for line in _lines(row, slots)]
        if any(line.points and not line.dashed for line in lines):
            found.append(
                line_chart(group, "training images per class", ACCURACY, lines, x_ticks=ticks)
            )
    return found


def _lines(row: Row, slots: Mapping[str, int]) -> list[Line]:
    label = row.labels[1]
    values = {int(k): v for k, v in row.values.items() if v is not None}
    ours = [(k, v.mean) for k, v in values.items() if v.mean is not None]
    spreads = [v.std for v in values.values() if v.mean is not None]
    known = [(k, v.paper) for k, v in values.items() if v.paper is not None]
    paper = Line(f"{label}, paper (dashed)", slots[label], known, dashed=True)
    return [Line(label, slots[label], ours, spreads), paper]
