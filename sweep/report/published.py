"""The papers' numbers, from `paper/*.csv`; where each was read is in the files' last column."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "paper"
FILES = (
    "cocoop_table1_base_to_new.csv",
    "cocoop_table2_cross_dataset.csv",
    "cocoop_table3_domain_generalization.csv",
    "coop_table1_domain_generalization.csv",
    "coop_table2_prompt_baselines.csv",
    "coop_fig3_few_shot.csv",
    "recipes_base_to_new.csv",
    "later_methods_base_to_new.csv",
    "prometar_base_to_new.csv",
    "peers_base_to_new.csv",
)
# Columns "table" that are read as one; the first that has a number gives it.
TOGETHER = {
    "family": (
        *("cocoop_table1", "recipes_base_to_new", "later_methods_base_to_new"),
        *("prometar_table", "peers_base_to_new"),
    ),
    "coop_table5": ("coop_table2", "coop_fig3"),
}
# One method, several names: ours, and the papers'.
SAME_METHOD = {
    "zero-shot CLIP": (
        *("CLIP", "Zero-shot CLIP", "Zero-shot CLIP (hand-crafted prompt)"),
        "Prompt engineering",
    ),
    "CLIP (ensemble)": ("Prompt ensembling",),
}

Key = tuple[str, str, str, str, int, str]  # table, method, backbone, dataset, shots, split


@cache
def numbers() -> dict[Key, float]:
    """Returns all accuracies and harmonic means, in per cent."""
    found: dict[Key, float] = {}
    for name in FILES:
        with (FOLDER / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["metric"] not in ("accuracy", "harmonic_mean"):
                    continue
                place = (row["table"], row["method"], row["backbone"], row["dataset"])
                found[(*place, int(row["shots"]), row["split"])] = float(row["value"])
    return found


def paper_value(
    table: str, method: str, backbone: str, dataset: str, shots: int, split: str
) -> float | None:
    """Returns the paper's number, or None if it is not known.

    Args:
        table: value of the column "table", or a key of TOGETHER.
        method, dataset: as we call them, or the paper does.
        shots: 0 for methods that learn nothing.
        split: "base", "new", "H", "source", "target", "target_average" or "test".
    """
    for name in TOGETHER.get(table, (table,)):
        for label in (method, *SAME_METHOD.get(method, ())):
            value = numbers().get((name, label, backbone, dataset, shots, split))
            if value is not None:
                return value
    return None
