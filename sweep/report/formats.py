"""A grid as text for the terminal, Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from tabulate import tabulate

from sweep.plan.table import Row
from sweep.report.grid import Grid
from sweep.report.stats import Value

MISSING = "missing"
NARROW = 4  # up to so many columns, paper and difference stand beside the number, else below it
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
    body = lines(grid, ansi if color else plain)
    align = ["left"] * (len(grid.heads)) + ["right"] * (len(header(grid)) - len(grid.heads))
    text = tabulate(body, header(grid), colalign=align if body else None, disable_numparse=True)
    return "\n".join([f"{grid.title} ({grid.name})", "", text, "", *grid.notes])


def markdown(grid: Grid) -> str:
    """Returns a Markdown table; differences that the spread does not explain are bold."""
    text = tabulate(
        lines(grid, lambda text, v: f"**{text}**" if v.within is False and text else text),
        header(grid),
        tablefmt="github",
        disable_numparse=True,
    )
    notes = "".join(f"\n- {note}" for note in grid.notes)
    return f"### {grid.title}\n\n{text}\n{notes}\n"


def latex(grid: Grid) -> str:
    """Returns a table environment for LaTeX; needs the packages booktabs and xcolor."""

    def paint(text: str, value: Value) -> str:
        color = {True: "green!50!black", False: "red", None: "gray"}[value.within]
        return rf"\textcolor{{{color}}}{{{text}}}" if text else text

    def escape(text: str) -> str:
        text = text.replace(" ± ", r" $\pm$ ")
        for sign in "%&#_":
            text = text.replace(sign, f"\\{sign}")
        return text

    spec = "l" * len(grid.heads) + "r" * (len(header(grid)) - len(grid.heads))
    body = [" & ".join(map(escape, line)) + r" \\" for line in lines(grid, paint)]
    return "\n".join(
        [
            r"\begin{table}",
            rf"  \caption{{{escape(grid.title)}}}",
            rf"  \begin{{tabular}}{{{spec}}}",
            r"    \toprule",
            "    " + " & ".join(map(escape, header(grid))) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            *(f"% {note}" for note in grid.notes),
        ]
    )


def comma_separated(grid: Grid) -> str:
    """Returns one line per value, unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [head.replace(" ", "_") for head in grid.heads]
    writer.writerow(
        ["table", *heads, "column", "mean", "std", "n", "seeds", "paper", "difference", "within"]
    )
    for row in grid.rows:
        for column in grid.columns:
            v = row.values.get(column)
            if v is not None:
                numbers = (v.text or v.mean, v.std, v.n, v.wanted, v.paper, v.difference, v.within)
                cells = ["" if x is None else x for x in numbers]
                writer.writerow([grid.name, *row.labels, column, *cells])
    return out.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Grid], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
}
