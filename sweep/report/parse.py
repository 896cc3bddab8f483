"""The mean over a folder of seeds, from records or from logs; upstream's `parse_test_res.py`.

A folder holds one folder per seed. A seed counts with its last record on the test set; where there
is none, with the last accuracy in its log.txt after the line that ends a run: "=> result" in logs
of evaluations, "Finish training" in logs of trainings.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.utils import MissingFileError
from dassl.utils.logger import log_files
from dassl.utils.results import accuracy_of
from dassl.utils.text import counted
from sweep.report.records import (
    SAME,
    MixedRecordsError,
    describe,
    known_settings,
    require_same,
)
from sweep.work.basis import fingerprint
from sweep.work.kept import DamagedFileError, content_of, records_in, say_once

ACCURACY = re.compile(r"\* accuracy: (\S+)%")
END_OF_TEST, END_OF_TRAINING = "=> result", "Finish training"


@dataclass(frozen=True)
class Parsed:
    """One seed's accuracy in per cent, where it was read, and what no other seed has in common."""

    accuracy: float
    source: Path
    described: dict[str, Any]
    own: Hashable


def parse_folder(folder: Path) -> dict[str, Parsed]:
    """Returns name of the seed's folder → what was found, for the folders directly below.

    Raises:
        MissingFileError: there is no such folder, or nothing in it is a finished run.
        MixedRecordsError: records differ in more than the seed, or in nothing.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder} does not exist; name a folder that holds seed1, seed2 …")
    found = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        if place.name.startswith("."):
            continue
        if (parsed := _seed(place)) is not None:
            found[place.name] = parsed
        else:
            say_once(f"{place} holds no finished run: it does not count")
    if not found:
        raise MissingFileError(
            f"no folder in {folder} holds a finished run (results.jsonl or log.txt with a result)"
        )
    require_same({str(p.source): p.described for p in found.values() if p.described})
    _require_different(found.values())
    return found


def _require_different(found: Iterable[Parsed]) -> None:
    """Raises MixedRecordsError if one seed is there twice, as a copy or a link of a folder is."""
    seen: dict[Hashable, Path] = {}
    for parsed in found:
        other = seen.setdefault(parsed.own, parsed.source)
        if other != parsed.source:
            raise MixedRecordsError(
                f"{other} and {parsed.source} are of one and the same seed, which a mean would "
                "count twice: move one away"
            )


def folders_of_seeds(folder: Path) -> list[Path]:
    """Returns all folders below `folder`, itself included, that hold a folder seed<k>."""
    names = {path.parent for path in folder.rglob("seed*") if path.is_dir()}
    return sorted(names)


def _seed(place: Path) -> Parsed | None:
    """Returns what a seed's folder says; what is damaged there says nothing."""
    records = place / "results.jsonl"
    try:
        if content_of(records):
            return _from_record(place, records)
        return _from_logs(place)
    except DamagedFileError as error:
        say_once(f"{error}: {place} counts as not finished")
        return None


def _from_record(place: Path, path: Path) -> Parsed | None:
    found = [r for r in records_in(path) if _says_finished(r)]
    if not found:
        return None
    accuracy = accuracy_of(found[-1], _is_counted(place))
    if accuracy is None:
        say_once(
            f"{path}: the last record holds no accuracy, or one that its counts contradict: "
            f"{place} counts as not finished"
        )
        return None
    kinds = [{key: record.get(key) for key in SAME if key != "total"} for record in found]
    if any(kind != kinds[-1] for kind in kinds):
        what = ", ".join(f"{key} {value}" for key, value in kinds[-1].items() if value is not None)
        say_once(f"{path} holds several evaluations, of which the last counts: {what}")
    seed = found[-1].get("seed")
    own = seed if type(seed) is int and seed >= 0 else fingerprint(found[-1])
    return Parsed(accuracy, path, describe(found[-1], place), own)


def _says_finished(record: Mapping[str, Any]) -> bool:
    return record.get("status") == "finished" and record.get("split") == "test"


def _is_counted(place: Path) -> bool:
    """Whether the accuracy is that of the engine's own evaluator."""
    return known_settings(place).get("TEST.EVALUATOR", "Classification") == "Classification"


def _from_logs(place: Path) -> Parsed | None:
    """The newest log that holds a result."""
    for path in reversed(log_files(place)):
        text = (content_of(path) or b"").decode(errors="replace")
        accuracy = last_accuracy(text.splitlines())
        if accuracy is not None:
            return Parsed(accuracy, path, {}, text)
    return None


def last_accuracy(lines: list[str]) -> float | None:
    """Returns the last accuracy after the line that ends the run, or None."""
    stripped = [line.strip() for line in lines]
    trained = any(line.startswith("epoch [") for line in stripped)
    signal = END_OF_TRAINING if trained else END_OF_TEST
    if signal not in stripped:
        return None
    found = [f for line in stripped[stripped.index(signal) :] for f in ACCURACY.findall(line)]
    try:
        accuracy = float(found[-1]) if found else math.nan
    except ValueError:
        return None
    return accuracy if 0 <= accuracy <= 100 else None


def mean_of(found: dict[str, Parsed]) -> float:
    """Returns the mean accuracy over the seeds."""
    return statistics.mean(p.accuracy for p in found.values())


def summary(found: dict[str, Parsed]) -> str:
    """Returns a line per seed, then mean and sample standard deviation."""
    lines = [f"{name}: {p.accuracy:.2f}%   ({p.source.name})" for name, p in found.items()]
    values = [p.accuracy for p in found.values()]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    lines.append(f"accuracy: {mean_of(found):.2f}%{spread} over {counted(len(values), 'seed')}")
    return "\n".join(lines)
