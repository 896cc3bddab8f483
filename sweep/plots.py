"""Charts of grids as SVG: few-shot curves (CoOp, figure 3) and bars for base and new classes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.grid import Grid, Row

COLORS = ("#2f6fb3", "#d9822b", "#3a9d5d", "#8e5bb0", "#c0392b", "#7f8c8d", "#16a085")
PANEL = (3.6, 2.9)  # inches


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sweep"  # the same picture, the same bytes
    from matplotlib import pyplot

    return pyplot


def curves(grid: Grid) -> str:
    """Returns few-shot curves as SVG: one panel per data set, the average first.

    Zero-shot is a star at 0 shots, as in the paper; its numbers are dashed where they are known.
    """
    pyplot = _pyplot()
    groups = list(dict.fromkeys(row.labels[0] for row in grid.rows))
    methods = list(dict.fromkeys(row.labels[1] for row in grid.rows))
    n_columns = min(4, len(groups))
    n_rows = math.ceil(len(groups) / n_columns)
    size = (max(7.0, PANEL[0] * n_columns), PANEL[1] * n_rows + 0.7)
    figure, panels = pyplot.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    for panel, group in zip(panels.flat, groups):
        rows = [row for row in grid.rows if row.labels[0] == group]
        _curve_panel(panel, group, rows, methods)
    for panel in panels.flat[len(groups) :]:
        panel.axis("off")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=min(4, len(labels)), frameon=False)
    figure.tight_layout(rect=(0, 0.7 / size[1], 1, 1))
    return _svg(figure)


def _curve_panel(panel: Any, group: str, rows: Sequence[Row], methods: Sequence[str]) -> None:
    for row in rows:
        color = COLORS[methods.index(row.labels[1]) % len(COLORS)]
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
    panel.set_title(group, fontsize=10)
    panel.set_xlabel("training images per class", fontsize=8)
    panel.set_ylabel("accuracy (%)", fontsize=8)
    shots = sorted({int(k) for row in rows for k in row.values})
    panel.set_xticks(shots, map(str, shots), fontsize=8)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def bars(grid: Grid) -> str:
    """Returns grouped bars, as SVG, of the first group of a base-to-new table: the average."""
    group = grid.rows[0].labels[0]
    rows = [row for row in grid.rows if row.labels[0] == group]
    return _svg(bar_figure(rows, {column: column for column in grid.columns}, group))


def bar_figure(
    rows: Sequence[Row],
    columns: Mapping[str, str],
    title: str,
    colors: Sequence[str] = COLORS,
) -> Any:
    """Returns a figure with a group of bars a column, one a row, and the seeds' spread.

    Args:
        rows: their last label is the legend's.
        columns: key of the rows' values → what stands below the group.
        colors: one a row, in turn.
    """
    figure, axes = _pyplot().subplots(figsize=(7.5, 3.6))
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        values = [row.values.get(column) for column in columns]
        there = [(x, v) for x, v in enumerate(values) if v is not None and v.mean is not None]
        places = [x + (i - (len(rows) - 1) / 2) * width for x, _ in there]
        drawn = axes.bar(
            places,
            [v.mean for _, v in there],
            width * 0.92,
            yerr=[v.std or 0.0 for _, v in there],
            color=colors[i % len(colors)],
            label=row.labels[-1],
            capsize=2,
        )
        axes.bar_label(drawn, [f"{v.mean:.1f}" for _, v in there], padding=2, fontsize=7)
    axes.set_xticks(range(len(columns)), columns.values())
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 119)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, loc="upper center", frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    _pyplot().close(figure)
    svg = out.getvalue()
    return svg[svg.index("<svg") :]
