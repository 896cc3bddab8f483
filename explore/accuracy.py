"""Sections on settings: all runs, base and new classes, each class against zero-shot CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from explore import needs
from explore.predictions import calibration_error
from explore.runs import Seen, Setting, where
from pages import Cell, Column, Section, Table
from pages.parts import Block
from sweep.plan.table import Row
from sweep.report.charts import bars_of
from sweep.report.html import cell
from sweep.report.stats import Value, harmonic_value, value

BASELINE = "ZeroshotCLIP"
MOST_CELLS = 100_000  # of tables of classes, some 5 MB
LEAST_CLASSES = 20  # of a test
UNFOLDED = 4  # tables of classes; of more, the first alone is open
MEANINGS = {
    "base": "Accuracy on the first half of the classes, which were trained on.",
    "new": "Accuracy on the second half, which the training did not see.",
    "H": "Harmonic mean of the seed-averaged base and new accuracy.",
    "all": "Accuracy on all classes, which were trained on.",
    "all, after base": "Accuracy on all classes, of which the base ones were trained on.",
    "all, after others": "Accuracy on all classes of what another run had learned.",
    "new, after new": "Accuracy on the second half of a run that was trained on it.",
}


def overview(runs: Sequence[Seen]) -> Section:
    """A line for each run."""
    columns = [
        Column("method", "The method, and the settings in which it differs from its others."),
        Column("dataset", "The dataset; of own pictures, the folder's or the CSV file's name."),
        Column("classes", "The classes of the test: all, base (the first half) or new (the rest)."),
        Column("shots", "Images a class that it learned from; 0: none.", number=True),
        Column("seed", "Of everything that is drawn.", number=True),
        Column("accuracy (%)", "On the test set.", number=True),
        Column("images", "In the test set.", number=True),
        Column("ECE (%)", "Expected calibration error; see Calibration.", number=True),
        Column("backbone", "CLIP's weights."),
        Column("folder", "Where the run is."),
    ]
    rows = [_line(one) for one in runs]
    empty = "Not finished, or not recorded: ECE needs predictions.csv, see Calibration."
    return Section("Runs", "Runs", [Table("Each run", columns, rows, empty)])


def _line(one: Seen) -> list[Cell]:
    counted = one.record.get("total") or None
    error = 100 * calibration_error(one.predictions) if one.predictions else None
    return [
        *map(Cell, (one.name, one.dataset, one.part)),
        _shots(one),
        _number(one.seed if one.seed >= 0 else None),
        _number(one.accuracy, ".2f"),
        _number(counted, ","),
        _number(error, ".1f"),
        *map(Cell, (one.run.backbone, str(one.folder))),
    ]


def _shots(one: Seen) -> Cell:
    shots = one.setting.get("DATASET.NUM_SHOTS", -1) if one.learns else 0
    return Cell("all", float("inf")) if shots < 0 else _number(shots)


def _number(number: float | None, form: str = "d") -> Cell:
    return Cell("") if number is None else Cell(format(number, form), number)


# --- base and new ---------------------------------------------------------------------------------


def base_and_new(settings: Sequence[Setting]) -> Section:
    """Bars and a table for each dataset: a row a method, a column a part of the classes."""
    blocks: list[Block] = []
    for dataset in dict.fromkeys(one.test[0] for one in settings):
        mine = [one for one in settings if one.test[0] == dataset and one.samples]
        rows = _rows(mine)
        parts = [part for part in MEANINGS if any(part in row.values for row in rows)]
        if not parts:
            continue
        blocks.append(bars_of(dataset, rows, parts))
        blocks.append(_table(dataset, rows, parts))
        trained = [s.runs[0] for s in mine if s.test[1] == "base" and s.runs[0].trained_here]
        tested = {one.name for one in mine if one.test[1] == "new"}
        blocks += [needs.new_classes(one) for one in trained if one.name not in tested]
    about = "Mean ± sample standard deviation over the seeds."
    return Section("Base and new", "Base and new classes", blocks, about)


def _rows(settings: Sequence[Setting]) -> list[Row]:
    found: dict[str, dict[str, Value]] = {}
    for one in settings:
        found.setdefault(one.name, {})[one.test[1]] = value(one.samples, len(one.runs))
    for values in found.values():
        if {"base", "new"} <= values.keys():
            values["H"] = harmonic_value(values["base"], values["new"])
    return [Row((name,), values) for name, values in found.items()]


def _table(dataset: str, rows: Sequence[Row], parts: Sequence[str]) -> Table:
    columns = [Column("method", "The same name and colour everywhere.")]
    columns += [Column(part, MEANINGS[part], number=True) for part in parts]
    lines = [[Cell(row.labels[0]), *(cell(row.values.get(part)) for part in parts)] for row in rows]
    return Table(f"{dataset}: accuracy (%)", columns, lines, "No such run is among those shown.")


# --- by class -------------------------------------------------------------------------------------


class Counted(NamedTuple):
    """A class of a test: its name, the number of its images, accuracy in per cent."""

    name: str
    total: int
    accuracy: float


Classes = dict[int, Counted]  # by label


def by_class(settings: Sequence[Setting]) -> Section:
    """A table for each test: a row a class, zero-shot CLIP, every other method, differences."""
    tests: dict[tuple[str, str], dict[Setting, Classes]] = {}
    for one in settings:
        if found := classes_of(one):
            tests.setdefault(one.test, {})[one] = found
    about = (
        "Accuracy of each class in per cent, mean over the seeds, and its difference from "
        "zero-shot CLIP in points."
    )
    cells = sum(2 * len(test) * len(next(iter(test.values()))) for test in tests.values())
    share = min(1, MOST_CELLS / max(1, cells))
    if share < 1:
        about += (
            " All classes would make the page too large for a browser: of each test those are here "
            "whose accuracy differs most between the methods; results.jsonl in a run's folder has "
            "all."
        )
    blocks: list[Block] = []
    for test, counted in tests.items():
        zero = _baseline(settings, next(iter(counted)))
        labels = list(next(iter(counted.values())))
        few = max(LEAST_CLASSES, int(share * len(labels)))
        chosen = _most_differing(labels, [*counted.values(), zero], few)
        folded = bool(blocks) and len(tests) > UNFOLDED
        blocks.append(_by_class(test, counted, zero, chosen, folded))
        if not zero:
            blocks.append(needs.zero_shot(next(iter(counted)).runs[0]))
    if not blocks:
        about = "No run's record counts the images of each class: its evaluator does not."
    return Section("Classes", "Accuracy by class", blocks, about)


def _most_differing(labels: list[int], found: Sequence[Classes], at_most: int) -> list[int]:
    """Returns the labels of the classes on which methods agree least, in order."""

    def spread(label: int) -> float:
        values = [one[label].accuracy for one in found if label in one]
        return max(values) - min(values)

    return sorted(sorted(labels, key=spread, reverse=True)[:at_most])


def classes_of(setting: Setting) -> Classes:
    """Returns label → its counts over the seeds."""
    found: dict[int, list[Counted]] = {}
    for one in setting.runs:
        for row in one.record.get("per_class") or ():
            share = 100 * row["correct"] / row["total"]
            found.setdefault(row["label"], []).append(
                Counted(str(row["name"]), row["total"], share)
            )
    return {
        label: Counted(some[0].name, some[0].total, mean(one.accuracy for one in some))
        for label, some in sorted(found.items())
    }


def _baseline(settings: Sequence[Setting], setting: Setting) -> Classes:
    """Returns zero-shot CLIP's counts on the same images; {}: there are none."""
    own, backbone = classes_of(setting), setting.runs[0].run.cfg.MODEL.BACKBONE
    for one in settings:
        first = one.runs[0]
        if first.trainer != BASELINE or one.test[0] != setting.test[0]:
            continue
        found = classes_of(one)
        same = {k: (c.name, c.total) for k, c in found.items()}
        if same == {k: (c.name, c.total) for k, c in own.items()} and (
            first.run.cfg.MODEL.BACKBONE == backbone
        ):
            return found
    return {}


def _by_class(
    test: tuple[str, str],
    counted: dict[Setting, Classes],
    zero: Classes,
    labels: Sequence[int],
    folded: bool,
) -> Table:
    others = {
        one: found for one, found in counted.items() if not zero or one.runs[0].trainer != BASELINE
    }
    columns = [Column("class"), Column("images", "In the test set.", number=True)]
    if zero:
        columns.append(Column("zero-shot CLIP", "Its accuracy (%).", number=True))
    for one in others:
        columns.append(Column(one.name, "Its accuracy (%).", number=True))
        if zero:
            means = "The difference from zero-shot CLIP, in points: + is better."
            columns.append(Column(f"{one.name} − zero-shot", means, number=True))
    all_classes = next(iter(counted.values()))
    rows = [
        _class_row(label, all_classes[label], [found.get(label) for found in others.values()], zero)
        for label in labels
    ]
    title = where(test)
    if len(labels) < len(all_classes):
        title += f": {len(labels):,} of them"
    return Table(title, columns, rows, "The run has no images of the class.", folded)


def _class_row(
    label: int, base: Counted, found: Sequence[Counted | None], zero: Classes
) -> list[Cell]:
    row = [Cell(base.name), _number(base.total, ",")]
    if zero:
        row.append(_number(zero[label].accuracy, ".1f"))
    for one in found:
        row.append(_number(None if one is None else one.accuracy, ".1f"))
        if zero:
            row.append(Cell("") if one is None else _change(one.accuracy - zero[label].accuracy))
    return row


def _change(points: float) -> Cell:
    kind = "soft" if abs(points) < 0.05 else "good" if points > 0 else "bad"
    return Cell(f"{points:+.1f}", points, kind=kind)
