"""A grid as text for the terminal, Markdown, LaTeX or CSV.

Names, such as those of datasets, are shown as they are in each: what the format, a terminal or a
spreadsheet would obey is escaped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from tabulate import tabulate

from dassl.utils.text import csv_cell
from sweep.plan.table import Row
from sweep.report.grid import Grid
from sweep.report.stats import Value

MISSING = "missing"
NARROW = 4  # up to so many columns, paper and difference stand beside the number, else below it
BOLD = "\0"  # stands around what is bold or coloured until texts are escaped; no text has it
PAINTED = re.compile(f"(True|False|None){BOLD}(.*){BOLD}")
GREEN, RED, GREY, PLAIN = "\033[32m", "\033[31m", "\033[90m", "\033[0m"

Paint = Callable[[str, Value], str]


def ours(value: Value | None, decimals: int = 2) -> str:
    """Returns "80.41 ± 0.52", "missing", or "" where there is nothing to show."""
    if value is None:
        return ""
    if value.text or value.mean is None:
        return value.text or MISSING
    text = f"{value.mean:.{decimals}f}"
    text += f" ± {value.std:.{decimals}f}" if value.std is not None else ""
    return text if value.complete else f"{text} ({value.n} of {value.wanted} seeds)"


def paper(value: Value | None) -> str:
    return "" if value is None or value.paper is None else f"{value.paper:.2f}"


def difference(value: Value | None) -> str:
    return "" if value is None or value.difference is None else f"{value.difference:+.2f}"


def plain(text: str, value: Value) -> str:
    return text


def ansi(text: str, value: Value) -> str:
    """Colours a difference: green within the seeds' spread, red outside, grey unknown."""
    color = {True: GREEN, False: RED, None: GREY}[value.within]
    return f"{color}{text}{PLAIN}" if text else text


# --- lines of cells -------------------------------------------------------------------------------


def header(grid: Grid) -> list[str]:
    if not grid.compared or len(grid.columns) > NARROW:
        extra = [""] if grid.compared else []
        return [*grid.heads, *extra, *grid.columns]
    return [*grid.heads, *(t for c in grid.columns for t in (c, "paper", "difference"))]


def lines(grid: Grid, paint: Paint = plain) -> list[list[str]]:
    """Returns the table's body as texts."""
    body = []
    for row in grid.rows:
        values = [row.values.get(column) for column in grid.columns]
        if not grid.compared:
            body.append([*row.labels, *map(ours, values)])
        elif len(grid.columns) <= NARROW:
            triples = [(ours(v), paper(v), v and paint(difference(v), v)) for v in values]
            body.append([*row.labels, *(text or "" for triple in triples for text in triple)])
        else:
            body += _stacked(row, values, paint)
    return body


def _stacked(row: Row, values: Sequence[Value | None], paint: Paint) -> list[list[str]]:
    blank = [""] * len(row.labels)
    found = [[*row.labels, "ours", *map(ours, values)]]
    if any(paper(value) for value in values):
        found.append([*blank, "paper", *map(paper, values)])
        differences = [v and paint(difference(v), v) for v in values]
        found.append([*blank, "difference", *(text or "" for text in differences)])
    return found


# --- formats --------------------------------------------------------------------------------------


def terminal(grid: Grid, color: bool = False) -> str:
    """Returns the table for a terminal, with its title and notes."""
    grid = grid.shown()
    body = lines(grid, ansi if color else plain)
    align = ["left"] * (len(grid.heads)) + ["right"] * (len(header(grid)) - len(grid.heads))
    text = tabulate(body, header(grid), colalign=align if body else None, disable_numparse=True)
    return "\n".join([f"{grid.title} ({grid.name})", "", text, "", *grid.notes])


def markdown(grid: Grid) -> str:
    """Returns a Markdown table; differences that the spread does not explain are bold."""
    grid = grid.shown()
    bold = lines(
        grid, lambda text, v: f"{BOLD}{text}{BOLD}" if v.within is False and text else text
    )
    text = tabulate(
        [[_markdown_text(cell).replace(BOLD, "**") for cell in line] for line in bold],
        [_markdown_text(cell) for cell in header(grid)],
        tablefmt="github",
        disable_numparse=True,
    )
    notes = "".join(f"\n- {_markdown_text(note)}" for note in grid.notes)
    return f"### {_markdown_text(grid.title)}\n\n{text}\n{notes}\n"


def _markdown_text(text: str) -> str:
    """Escapes what Markdown reads as more than itself; within a word, "_" and "*" are no marks."""
    return re.sub(r"[\\`|<>\[\]&#~$]|(?<!\w)[_*]|[_*](?!\w)", r"\\\g<0>", text)


LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "%&#_${}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}


def latex(grid: Grid) -> str:
    """Returns a table environment for LaTeX; needs the packages booktabs and xcolor."""
    grid = grid.shown()

    def escape(text: str) -> str:
        return "".join(LATEX.get(sign, sign) for sign in text)

    def row(cells: Sequence[str]) -> str:
        return " & ".join(PAINTED.sub(color, escape(cell)) for cell in cells) + r" \\"

    def paint(text: str, value: Value) -> str:
        return f"{value.within}{BOLD}{text}{BOLD}" if text else text

    def color(found: re.Match[str]) -> str:
        name = {"True": "green!50!black", "False": "red", "None": "gray"}[found[1]]
        return rf"\textcolor{{{name}}}{{{found[2]}}}"

    spec = "l" * len(grid.heads) + "r" * (len(header(grid)) - len(grid.heads))
    return "\n".join(
        [
            r"\begin{table}",
            rf"  \caption{{{escape(grid.title)}}}",
            rf"  \begin{{tabular}}{{{spec}}}",
            r"    \toprule",
            f"    {row(header(grid))}",
            r"    \midrule",
            *(f"    {row(line)}" for line in lines(grid, paint)),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            *(f"% {note}" for note in grid.notes),
        ]
    )


def comma_separated(grid: Grid) -> str:
    """Returns one line per value, unrounded; no cell is a formula to a spreadsheet."""
    grid = grid.shown()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")

    def write(cells: Sequence[Any]) -> None:
        writer.writerow(["" if cell is None else csv_cell(cell) for cell in cells])

    heads = [head.replace(" ", "_") for head in grid.heads]
    write(["table", *heads, "column", "mean", "std", "n", "seeds", "paper", "difference", "within"])
    for row in grid.rows:
        for column in grid.columns:
            v = row.values.get(column)
            if v is not None:
                numbers = (v.text or v.mean, v.std, v.n, v.wanted, v.paper, v.difference, v.within)
                write([grid.name, *row.labels, column, *numbers])
    return out.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Grid], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
}
