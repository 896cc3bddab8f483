"""Guesses as a table, as CSV (a line a guess), or as JSON (a line a picture)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence

from tabulate import tabulate

from dassl.utils.text import csv_cell, on_one_line, visible
from prompts.predictor import Guesses

HEADER = ("picture", "rank", "class", "probability")


def as_table(paths: Sequence[str], guesses: Sequence[Guesses]) -> str:
    rows = [
        ["" if rank else visible(on_one_line(path)), visible(name), f"{probability:.1%}"]
        for path, found in zip(paths, guesses)
        for rank, (name, probability) in enumerate(found)
    ]
    header = (HEADER[0], *HEADER[2:])
    return tabulate(rows, header, disable_numparse=True, colalign=("left", "left", "right")) + "\n"


def as_csv(paths: Sequence[str], guesses: Sequence[Guesses]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for path, found in zip(paths, guesses):
        for rank, (name, probability) in enumerate(found, 1):
            writer.writerow([csv_cell(path), rank, csv_cell(name), probability])
    return text.getvalue()


def as_json_lines(paths: Sequence[str], guesses: Sequence[Guesses]) -> str:
    records = (
        {"picture": path, "classes": [{"name": n, "probability": p} for n, p in found]}
        for path, found in zip(paths, guesses)
    )
    return "".join(json.dumps(record) + "\n" for record in records)


FORMATS: dict[str, Callable[[Sequence[str], Sequence[Guesses]], str]] = {
    "table": as_table,
    "csv": as_csv,
    "jsonl": as_json_lines,
}
