"""Bars as a picture, and the colour of each method, there and on the HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pages.colors import LIGHT as COLORS
from sweep.plan.table import Row

# A method has the same colour in every chart; its variants and other methods take what is left.
METHOD_COLORS = {
    "zero-shot CLIP": COLORS[0],
    "CLIP (ensemble)": COLORS[1],
    "Linear probe CLIP": COLORS[2],
    "CoOp": COLORS[3],
    "CoCoOp": COLORS[4],
}
WIDTH = 9.0  # inches
LEGEND_ROW, LEGEND_COLUMNS = 0.26, 5


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # a name may hold dollar signs
    from matplotlib import pyplot

    return pyplot


def colors_of(methods: Sequence[str]) -> dict[str, str]:
    """Returns method → colour."""
    chosen: dict[str, str] = {}
    for method in methods:
        kind = method if method in METHOD_COLORS else method.partition(" (")[0]
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
