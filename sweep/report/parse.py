"""The mean over a folder of seeds, from records or from logs; upstream's `parse_test_res.py`.

A folder holds one folder per seed. A seed counts with its last record on the test set; where there
is none, with the last accuracy in its log.txt after the line that ends a run: "=> result" in logs
of evaluations, "Finish training" in logs of trainings.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.utils import DataError, MissingFileError
from dassl.utils.results import read_records
from sweep.report.records import describe, require_same

ACCURACY = re.compile(r"\* accuracy: ([.\deE+-]+)%")
END_OF_TEST, END_OF_TRAINING = "=> result", "Finish training"


@dataclass(frozen=True)
class Parsed:
    """One seed's accuracy in per cent, and where it was read."""

    accuracy: float
    source: Path
    described: dict[str, Any]


def parse_folder(folder: Path) -> dict[str, Parsed]:
    """Returns name of the seed's folder → what was found, for the folders directly below.

    Raises:
        MissingFileError: there is no such folder, or nothing in it is a finished run.
        MixedRecordsError: records differ in more than the seed.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder} does not exist; name a folder that holds seed1, seed2 …")
    found = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        parsed = _from_record(place) or _from_logs(place)
        if parsed is not None:
            found[place.name] = parsed
    if not found:
        raise MissingFileError(
            f"no folder in {folder} holds a finished run (results.jsonl or log.txt with a result)"
        )
    require_same({str(p.source): p.described for p in found.values() if p.described})
    return found


def folders_of_seeds(folder: Path) -> list[Path]:
    """Returns all folders below `folder`, itself included, that hold a folder seed<k>."""
    names = {path.parent for path in folder.rglob("seed*") if path.is_dir()}
    return sorted(names)


def _from_record(place: Path) -> Parsed | None:
    path = place / "results.jsonl"
    found = None
    for record in read_records(path) if path.is_file() else ():
        if record.get("status") == "finished" and record.get("split") == "test":
            found = record
    if found is None:
        return None
    return Parsed(found["metrics"]["accuracy"], path, describe(found, place))


def _from_logs(place: Path) -> Parsed | None:
    """The newest log that holds a result; logs of later attempts are called log.txt-<time>."""
    for path in sorted(place.glob("log.txt*"), reverse=True):
        text = path.read_text(encoding="utf-8", errors="replace").splitlines()
        accuracy = last_accuracy(text)
        if accuracy is not None:
            return Parsed(accuracy, path, {})
    return None


def last_accuracy(lines: list[str]) -> float | None:
    """Returns the last accuracy after the line that ends the run, or None."""
    stripped = [line.strip() for line in lines]
    trained = any(line.startswith("epoch [") for line in stripped)
    signal = END_OF_TRAINING if trained else END_OF_TEST
    if signal not in stripped:
        return None
    found = list(_accuracies(stripped[stripped.index(signal) :]))
    return found[-1] if found else None


def _accuracies(lines: list[str]) -> Iterator[float]:
    for line in lines:
        match = ACCURACY.search(line)
        if match:
            try:
                yield float(match.group(1))
            except ValueError:
                raise DataError(f"{line!r} holds no number") from None


def mean_of(found: dict[str, Parsed]) -> float:
    """Returns the mean accuracy over the seeds."""
    return statistics.mean(p.accuracy for p in found.values())


def summary(found: dict[str, Parsed]) -> str:
    """Returns a line per seed, then mean and sample standard deviation."""
    lines = [f"{name}: {p.accuracy:.2f}%   ({p.source.name})" for name, p in found.items()]
    values = [p.accuracy for p in found.values()]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    lines.append(f"accuracy: {mean_of(found):.2f}%{spread} over {len(values)} seeds")
    return "\n".join(lines)
