"""Reads the records of runs and refuses to average what differs in more than the seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dassl.utils import DataError
from dassl.utils.text import visible
from sweep.plan.protocols import Cell
from sweep.work.folder import RunFolder, settings_in
from sweep.work.kept import DamagedFileError, say_once

# Entries of a record that must agree between seeds, beside the settings in config.yaml.
SAME = (
    *("trainer", "dataset", "split", "classes", "shots", "epoch"),
    *("backbone", "precision", "total"),
)


class MixedRecordsError(DataError):
    """Records that were to be averaged differ in more than the seed."""


def records_of(cell: Cell, output: Path) -> dict[int, dict[str, Any]]:
    """Returns seed → record, of the runs of a cell that are finished.

    Raises:
        MixedRecordsError: they differ in more than the seed.
    """
    folders = [RunFolder(run, output) for run in cell.runs]
    found = [(folder, folder.record()) for folder in folders]
    done = [(folder, record) for folder, record in found if record is not None]
    described = {str(folder.path): describe(record, folder.path) for folder, record in done}
    for folder, record in done:
        if weights := folder.weights(record):
            described[str(folder.path)]["weights.sha256"] = weights
    require_same(described)
    return {folder.run.seed: record for folder, record in done}


def samples_of(records: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    """Returns seed → accuracy in per cent."""
    return {seed: record["metrics"]["accuracy"] for seed, record in records.items()}


def describe(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns what must agree between records: full key → value."""
    described = {key: record[key] for key in SAME if key in record}
    for name, key in (("data", "split_digest"), ("weights", "sha256")):
        part = record.get(name)
        if isinstance(part, dict) and part.get(key):
            described[f"{name}.{key}"] = part[key]
    return {**described, **known_settings(folder)}


def known_settings(folder: Path) -> dict[str, Any]:
    """Returns the settings in a run's config.yaml by full key; none if it is lost or damaged."""
    try:
        return settings_in(folder) or {}
    except DamagedFileError as error:
        say_once(f"{error}: what it says is not compared")
        return {}


def require_same(described: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises MixedRecordsError unless all descriptions (by place) agree; names what differs.

    What a place does not say, as its config.yaml is lost or of an earlier version, may be anything.
    """
    first: dict[str, tuple[str, Any]] = {}  # key → who said it first, and what
    differing: dict[tuple[str, str], list[str]] = {}  # two places → what differs
    for place, found in described.items():
        for key, value in sorted(found.items()):
            other, wanted = first.setdefault(key, (place, value))
            if value != wanted:
                differing.setdefault((other, place), []).append(
                    f"  {key}: {wanted!r} and {value!r}"
                )
    for (one, other), lines in differing.items():
        raise MixedRecordsError(
            "\n".join(
                [
                    f"{one} and {other} differ in more than the seed, so their mean "
                    "would mean nothing:",
                    *lines,
                    "Do the runs anew with one setting, on one kind of device, or name a "
                    "folder that holds one setting.",
                ]
            )
        )


def versions_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each of commit, torch and device that is not the same everywhere."""
    seen: dict[str, set[str]] = {"commit": set(), "torch": set(), "device": set()}
    for record in records:
        for key, values in seen.items():
            if record.get(key):
                values.add(visible(str(record[key])))
    return [
        f"{key} differs between the runs: {', '.join(sorted(values))}."
        for key, values in seen.items()
        if len(values) > 1
    ]
