"""The layouts of tables: which number stands in which row and column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sweep.plan.recipes import AVERAGE, Method, paper_name
from sweep.plan.table import Arrangement, Numbers, Row, Table, Value

# --- base to new ----------------------------------------------------------------------------------


# All classes are another thing after a training on half of them than after one on all.
ALL_HEADS = {"all": "all, after base", "whole": "all, after all"}


def base_to_new(table: Table, numbers: Numbers) -> Arrangement:
    """Rows: datasets, their average first, and methods; columns: base, new, H, all."""
    setting = table.setting
    parts = [p for p in ("base", "new") if p in setting.parts]
    columns = [*parts, "H"] if len(parts) == 2 else parts
    columns += [head for part, head in ALL_HEADS.items() if part in setting.parts]
    by_dataset = {
        (dataset, method): _halves(table, numbers, method, dataset)
        for dataset in setting.datasets
        for method in setting.methods
    }
    rows = []
    if len(setting.datasets) > 1:
        for method in setting.methods:
            each = [by_dataset[dataset, method] for dataset in setting.datasets]
            rows.append(Row((AVERAGE, method.label), _mean_halves(table, numbers, method, each)))
    for (dataset, method), values in by_dataset.items():
        rows.append(Row((paper_name(dataset), method.label), values))
    return ("dataset", "method"), tuple(columns), tuple(rows)


def _halves(table: Table, numbers: Numbers, method: Method, dataset: str) -> dict[str, Value]:
    setting = table.setting
    values = {}
    for part in setting.parts:
        place = (method, dataset, part, setting.shots[0], setting.backbone)
        found = numbers.cell(*place, split=part)
        if found is not None:
            values[ALL_HEADS.get(part, part)] = found
    return _with_harmonic(table, numbers, method, paper_name(dataset), values)


def _mean_halves(
    table: Table, numbers: Numbers, method: Method, each: Sequence[dict[str, Value]]
) -> dict[str, Value]:
    shots, backbone = table.setting.shots[0], table.setting.backbone
    values = {
        part: numbers.mean(
            [v[part] for v in each], numbers.paper(method, AVERAGE, shots, backbone, part)
        )
        for part in each[0]
        if part != "H"
    }
    return _with_harmonic(table, numbers, method, AVERAGE, values)


def _with_harmonic(
    table: Table, numbers: Numbers, method: Method, name: str, values: dict[str, Value]
) -> dict[str, Value]:
    if {"base", "new"} <= values.keys():
        shots, backbone = table.setting.shots[0], table.setting.backbone
        paper = numbers.paper(method, name, shots, backbone, "H")
        values["H"] = numbers.harmonic(values["base"], values["new"], paper)
    return values


# --- transfer -------------------------------------------------------------------------------------


def transfer(table: Table, numbers: Numbers) -> Arrangement:
    """Rows: backbones, if several, and methods; columns: source, targets and their average."""
    setting = table.setting
    shots, names = setting.shots[0], [setting.source, *setting.datasets]
    several = len(table.backbones) > 1
    rows = []
    for backbone in table.all_backbones:
        for method in setting.methods:
            values = {}
            for dataset in names:
                part = "source" if dataset == setting.source else "target"
                found = numbers.cell(method, dataset, part, shots, backbone, split=part)
                values[paper_name(dataset)] = found
            targets = [values[paper_name(d)] for d in setting.datasets]
            paper = numbers.paper(method, AVERAGE, shots, backbone, "target_average")
            values[AVERAGE] = numbers.mean(targets, paper)
            labels = (backbone, method.label) if several else (method.label,)
            rows.append(Row(labels, values))
    heads = ("backbone", "method") if several else ("method",)
    return heads, (*map(paper_name, names), AVERAGE), tuple(rows)


# --- few-shot -------------------------------------------------------------------------------------


def _test_accuracy(
    numbers: Numbers, method: Method, dataset: str, shots: int, backbone: str
) -> Value | None:
    shots = shots if method.learns else 0
    return numbers.cell(method, dataset, "all", shots, backbone, split="test")


def backbones(table: Table, numbers: Numbers) -> Arrangement:
    """Rows: methods; columns: backbones."""
    setting = table.setting
    rows = []
    for dataset in setting.datasets:
        for method in setting.methods:
            values = {
                backbone: _test_accuracy(numbers, method, dataset, setting.shots[0], backbone)
                for backbone in table.all_backbones
            }
            rows.append(Row((method.label,), values))
    return ("method",), table.all_backbones, tuple(rows)


def average(table: Table, numbers: Numbers) -> Arrangement:
    """Rows: methods; columns: datasets, their average first."""
    setting = table.setting
    rows = []
    for method in setting.methods:
        values = {
            paper_name(d): _test_accuracy(numbers, method, d, setting.shots[0], setting.backbone)
            for d in setting.datasets
        }
        rows.append(Row((method.label,), {AVERAGE: _mean(numbers, values.values()), **values}))
    return ("method",), (AVERAGE, *map(paper_name, setting.datasets)), tuple(rows)


def curves(table: Table, numbers: Numbers) -> Arrangement:
    """Rows: datasets, their average first, and methods; columns: numbers of shots."""
    setting = table.setting
    rows = []
    for dataset in setting.datasets:
        for method in setting.methods:
            values = {
                str(shots): _test_accuracy(numbers, method, dataset, shots, setting.backbone)
                for shots in (setting.shots if method.learns else (0,))
            }
            rows.append(Row((paper_name(dataset), method.label), values))
    if len(setting.datasets) > 1:
        rows = [*_mean_curves(table, numbers, rows), *rows]
    zero = ("0",) if any(not method.learns for method in setting.methods) else ()
    return ("dataset", "method"), (*zero, *map(str, setting.shots)), tuple(rows)


def _mean_curves(table: Table, numbers: Numbers, rows: Sequence[Row]) -> list[Row]:
    """Returns one row per method: the mean over datasets."""
    averages = []
    for method in table.setting.methods:
        mine = [row for row in rows if row.labels[1] == method.label]
        values = {}
        for shots in mine[0].values:
            values[shots] = _mean(numbers, [row.values[shots] for row in mine])
        averages.append(Row((AVERAGE, method.label), values))
    return averages


def _mean(numbers: Numbers, each: Iterable[Value]) -> Value:
    """Returns the mean over datasets. The paper's is the mean of its cells, if all are known."""
    each = list(each)
    known = [value.paper for value in each if value.paper is not None]
    return numbers.mean(each, sum(known) / len(known) if len(known) == len(each) else None)


# --- words ----------------------------------------------------------------------------------------


def words(table: Table, numbers: Numbers) -> Arrangement:
    """Rows: context vectors, counted from 1; columns: datasets."""
    found = {paper_name(cell.dataset): numbers.words(cell) for cell in table.cells()}
    length = max(map(len, found.values()))
    rows = tuple(
        Row((str(i + 1),), {name: each[min(i, len(each) - 1)] for name, each in found.items()})
        for i in range(length)
    )
    return ("vector",), tuple(found), rows
