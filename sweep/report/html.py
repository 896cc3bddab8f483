"""Grids as sections of an HTML page; pictures of confused classes stay beside the runs, linked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from urllib.parse import quote

from pages import Cell, Column, Page, Section, Table, render
from sweep.report.charts import charts
from sweep.report.formats import difference, ours, paper
from sweep.report.grid import Grid
from sweep.report.stats import Value

MEANINGS = {
    "dataset": "The dataset; Average is the mean over all of them.",
    "method": "What was tested; a method has the same name and colour everywhere.",
    "backbone": "The image tower of CLIP.",
    "vector": "The number of the learned context vector.",
    "base": "Accuracy on the classes trained on, the first half.",
    "new": "Accuracy on the other classes, which no training saw.",
    "H": "Harmonic mean of the seed-averaged base and new accuracy.",
    "all, after base": "Accuracy on all classes, after training on the base ones.",
    "all, after all": "Accuracy on all classes, after training on all of them.",
    "Average": "Mean over the datasets to the left or right of it, the source left out.",
}
EMPTY = "The method is not tested there: nothing is missing. What is missing is called so."


def page(grids: Sequence[Grid], title: str = "Prompt learning for CLIP: results") -> str:
    """Returns the page for several tables."""
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    about = f"Accuracy in per cent, made from run records on {made}. A heading sorts its table."
    return render(Page(title, about, sections(grids)))


def sections(grids: Sequence[Grid]) -> list[Section]:
    """Returns a section a grid: its charts, its table, its notes, links to pictures."""
    return [_section(grid.shown()) for grid in grids]


def _section(grid: Grid) -> Section:
    names = [*grid.heads, *grid.columns]
    columns = [
        Column(n, meaning(n, grid), number=i >= len(grid.heads)) for i, n in enumerate(names)
    ]
    rows = [
        [*map(Cell, row.labels), *(cell(row.values.get(name)) for name in grid.columns)]
        for row in grid.rows
    ]
    addresses = [(title, quote(link, errors="surrogateescape")) for title, link in grid.links]
    return Section(
        grid.name,
        grid.title,
        [
            *charts(grid),
            Table("Accuracy (%)" if _numbers(grid) else grid.title, columns, rows, EMPTY),
        ],
        notes=grid.notes,
        links=addresses,
        links_title="Most confused classes, with images",
    )


def _numbers(grid: Grid) -> bool:
    return not any(value.text for value in grid.values() if value is not None)


def meaning(name: str, grid: Grid) -> str:
    """Returns what stands in a column, as a sentence."""
    if name in MEANINGS:
        return MEANINGS[name]
    if name.isdigit():
        return f"Accuracy with {name} training images a class." if name != "0" else "Zero-shot."
    what = "accuracy" if _numbers(grid) else "the nearest word and how near it is"
    return f"{what[0].upper()}{what[1:]}, {name}."


def cell(value: Value | None) -> Cell:
    """Returns one cell: the number, below it the paper's and the difference, coloured."""
    if value is None:
        return Cell("")
    if value.text or value.mean is None:
        return Cell(ours(value), missing=not value.text)
    seeds = ", ".join(f"seed {seed}: {sample:.2f}" for seed, sample in value.samples.items())
    seeds = seeds if value.n > 1 else ""
    more, change, kind = "", "", ""
    if value.paper is not None:
        kind = {True: "good", False: "bad", None: "soft"}[value.within] if value.difference else ""
        more = f"paper {paper(value)}"
        change = f"({difference(value)})" if value.difference else ""
    return Cell(ours(value), value.mean, more, change, kind, seeds=seeds)
