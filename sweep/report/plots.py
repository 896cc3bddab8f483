"""Charts of grids as SVG: few-shot curves (CoOp, figure 3) and bars for base and new classes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.plan.table import Row
from sweep.report.grid import Grid

# A method has the same colour in every chart; its variants and other methods take what is left.
METHOD_COLORS = {
    "CLIP": "#2f6fb3",
    "CLIP (ensemble)": "#d9822b",
    "Linear probe CLIP": "#3a9d5d",
    "CoOp": "#8e5bb0",
    "CoCoOp": "#c0392b",
}
COLORS = (*METHOD_COLORS.values(), "#7f8c8d", "#16a085", "#c79a00", "#34495e")
PANEL = (3.6, 2.7)  # inches
WIDTH = 9.0  # of a chart with one panel
LEGEND_ROW, LEGEND_COLUMNS = 0.26, 5


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sweep"  # the same picture, the same bytes
    matplotlib.rcParams["text.parse_math"] = False  # a name may hold dollar signs
    from matplotlib import pyplot

    return pyplot


def colors_of(methods: Sequence[str]) -> dict[str, str]:
    """Returns method → colour."""
    chosen: dict[str, str] = {}
    for method in methods:
        kind = method if method in METHOD_COLORS else method.partition(" (")[0]
        kind = "CLIP" if kind.lower().startswith("zero-shot clip") else kind
        own = METHOD_COLORS.get(kind)
        if own and own not in chosen.values():
            chosen[method] = own
    left = [color for color in COLORS if color not in chosen.values()] or COLORS
    others = [method for method in methods if method not in chosen]
    return chosen | {method: left[i % len(left)] for i, method in enumerate(others)}


def _legend_below(figure: Any, panel: Any) -> None:
    """Makes room for one legend below all panels."""
    handles, labels = panel.get_legend_handles_labels()
    n_rows = max(1, math.ceil(len(labels) / LEGEND_COLUMNS))
    columns, height = max(1, math.ceil(len(labels) / n_rows)), n_rows * LEGEND_ROW + 0.1
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, height / figure.get_figheight(), 1, 1))


def _styled(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=10, loc="left", weight="bold")
    panel.set_ylabel("accuracy (%)", fontsize=9)
    panel.tick_params(labelsize=9)
    panel.grid(alpha=0.3)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def curves(grid: Grid) -> str:
    """Returns few-shot curves as SVG: one panel per dataset, the average first.

    Zero-shot is a star at 0 shots, as in the paper; its numbers are dashed where they are known.
    """
    pyplot = _pyplot()
    groups = list(dict.fromkeys(row.labels[0] for row in grid.rows))
    methods = list(dict.fromkeys(row.labels[1] for row in grid.rows))
    n_columns = min(4, len(groups))
    n_rows = math.ceil(len(groups) / n_columns)
    size = (max(WIDTH, PANEL[0] * n_columns), PANEL[1] * n_rows + 0.5)
    figure, panels = pyplot.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    for panel, group in zip(panels.flat, groups):
        rows = [row for row in grid.rows if row.labels[0] == group]
        _curve_panel(panel, group, rows, colors_of(methods))
    for panel in panels.flat[len(groups) :]:
        panel.axis("off")
    _legend_below(figure, panels.flat[0])
    return _svg(figure)


def _curve_panel(panel: Any, group: str, rows: Sequence[Row], colors: Mapping[str, str]) -> None:
    for row in rows:
        color = colors[row.labels[1]]
        points = [(int(k), v) for k, v in row.values.items() if v.mean is not None]
        known = [(int(k), v.paper) for k, v in row.values.items() if v.paper is not None]
        star = {"marker": "*", "markersize": 12, "linestyle": "none"}
        line = {"marker": "o", "markersize": 4}
        style = star if list(row.values) == ["0"] else line
        panel.errorbar(
            [k for k, _ in points],
            [v.mean for _, v in points],
            yerr=[v.std or 0.0 for _, v in points],
            color=color,
            capsize=2,
            label=row.labels[1],
            **style,
        )
        dashes = {**style, "linestyle": "none" if style is star else "--"}
        faint = {"color": color, "alpha": 0.35, "fillstyle": "none"}
        panel.plot([k for k, _ in known], [p for _, p in known], **dashes, **faint)
    _styled(panel, group)
    panel.set_xlabel("training images per class", fontsize=9)
    shots = sorted({int(k) for row in rows for k in row.values})
    panel.set_xticks(shots, map(str, shots))


def bars(grid: Grid) -> str:
    """Returns grouped bars, as SVG, of the first group of a base-to-new table: the average."""
    group = grid.rows[0].labels[0]
    rows = [row for row in grid.rows if row.labels[0] == group]
    return _svg(bar_figure(rows, {column: column for column in grid.columns}, group))


def bar_figure(rows: Sequence[Row], columns: Mapping[str, str], title: str) -> Any:
    """Returns a figure with a group of bars a column, one a row, and the seeds' spread.

    Args:
        rows: their last label is the legend's.
        columns: key of the rows' values → what stands below the group.
        title: what the numbers are of.
    """
    colors = colors_of([row.labels[-1] for row in rows])
    figure, axes = _pyplot().subplots(figsize=(WIDTH, 3.5))
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        values = [row.values.get(column) for column in columns]
        there = [(x, v) for x, v in enumerate(values) if v is not None and v.mean is not None]
        places = [x + (i - (len(rows) - 1) / 2) * width for x, _ in there]
        drawn = axes.bar(
            places,
            [v.mean for _, v in there],
            width * 0.92,
            yerr=[v.std or math.nan for _, v in there],
            color=colors[row.labels[-1]],
            label=row.labels[-1],
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#4b5763"},
        )
        axes.bar_label(drawn, [f"{v.mean:.1f}" for _, v in there], padding=2, fontsize=8)
    _styled(axes, title)
    axes.set_xticks(range(len(columns)), columns.values())
    axes.set_ylim(0, 109)
    axes.grid(visible=False, axis="x")
    _legend_below(figure, axes)
    return figure


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    _pyplot().close(figure)
    svg = out.getvalue()
    return svg[svg.index("<svg") :]
