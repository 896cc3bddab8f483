"""One HTML page: sortable tables and charts in one file, no network.

Pictures of confused classes stay where they are, beside the runs; the page has links to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from urllib.parse import quote

from dassl.utils.text import visible
from sweep.report.formats import difference, ours, paper
from sweep.report.grid import Grid
from sweep.report.plots import bars, curves
from sweep.report.stats import Value

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
  color: #1d2733; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #1d2733; cursor: pointer; }
th:hover { background: #eef2f6; } th[data-order]::after { content: ' \\2193'; }
th[data-order='up']::after { content: ' \\2191'; }
td.label, th.label { text-align: left; } tbody tr:hover { background: #f5f8fb; }
td { border-bottom: 1px solid #e3e8ee; } .missing { color: #9a6b00; font-style: italic; }
.within { color: #1a7f37; } .outside { color: #c0262d; } .unknown { color: #66717d; }
.more { display: block; font-size: .78rem; } svg { max-width: 100%; height: auto; }
.notes, nav { color: #4b5763; font-size: .86rem; } nav a { margin-right: 1rem; }
"""
# A click on a heading sorts by it: numbers as numbers, empty cells last.
SCRIPT = """
for (const head of document.querySelectorAll('th')) head.onclick = () => {
  const table = head.closest('table'), place = head.cellIndex, body = table.tBodies[0];
  const up = head.dataset.order !== 'up';
  for (const other of table.querySelectorAll('th')) delete other.dataset.order;
  head.dataset.order = up ? 'up' : 'down';
  const key = row => row.cells[place].dataset.value ?? row.cells[place].textContent;
  const sorted = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === '' || y === '') return (x === '') - (y === '');
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return up ? order : -order;
  });
  body.append(...sorted);
};
"""


def page(grids: Sequence[Grid], title: str = "Prompt learning for CLIP: results") -> str:
    """Returns the page for several tables."""
    grids = [grid.shown() for grid in grids]
    title = visible(title)
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    links = "".join(f'<a href="#t{i}">{escape(g.name)}</a>' for i, g in enumerate(grids))
    sections = "\n".join(section(grid, f"t{i}") for i, grid in enumerate(grids))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p class='notes'>Accuracy in per cent, made from run records "
        f"on {made}. Click a heading to sort; point at a number to see its seeds.</p>\n"
        f"<nav>{links}</nav>\n{sections}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(grid: Grid, anchor: str) -> str:
    """Returns heading, chart, table and notes of one grid."""
    heads = "".join(f'<th class="label">{escape(head)}</th>' for head in grid.heads)
    heads += "".join(f"<th>{escape(column)}</th>" for column in grid.columns)
    rows = []
    for row in grid.rows:
        labels = "".join(f'<td class="label">{escape(label)}</td>' for label in row.labels)
        cells = "".join(cell(row.values.get(column)) for column in grid.columns)
        rows.append(f"<tr>{labels}{cells}</tr>")
    notes = "".join(f"<li>{escape(note)}</li>" for note in grid.notes)
    return (
        f'<h2 id="{anchor}">{escape(grid.title)}</h2>\n{chart(grid)}\n'
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + f"\n</tbody></table></div>\n<ul class='notes'>{notes}</ul>{links(grid)}"
    )


def links(grid: Grid) -> str:
    """Returns a list, folded, of what belongs to a grid; "" if there is nothing."""
    if not grid.links:
        return ""
    items = "".join(
        f'<li><a href="{escape(quote(address, errors="surrogateescape"))}">{escape(title)}</a></li>'
        for title, address in grid.links
    )
    return (
        f"\n<details class='notes'><summary>Most confused classes, with images "
        f"({len(grid.links)})</summary><ul>{items}</ul></details>"
    )


def cell(value: Value | None) -> str:
    """Returns one cell: the number, below it the paper's and the difference, coloured."""
    if value is None:
        return '<td data-value=""></td>'
    missing = ' class="missing"' if value.mean is None and not value.text else ""
    number = "" if value.mean is None else f"{value.mean:.6f}"
    key = f' data-value="{escape(value.text) or number}"'
    seeds = ", ".join(f"seed {seed}: {sample:.2f}" for seed, sample in value.samples.items())
    more = ""
    if value.paper is not None:
        kind = {True: "within", False: "outside", None: "unknown"}[value.within]
        change = f' <span class="{kind}">({difference(value)})</span>' if value.difference else ""
        more = f'<span class="more">paper {paper(value)}{change}</span>'
    return f'<td{missing}{key} title="{escape(seeds)}">{escape(ours(value))}{more}</td>'


def chart(grid: Grid) -> str:
    """Returns the grid's chart; "" where there is none or nothing to draw."""
    if not any(value.mean is not None for value in grid.values()):
        return ""
    if "method" in grid.heads and {"base", "new"} <= set(grid.columns):
        return bars(grid)
    if grid.heads == ("dataset", "method") and all(c.isdigit() for c in grid.columns):
        return curves(grid)
    return ""
