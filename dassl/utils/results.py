"""One line of JSON per evaluation: what was run, on what, and what came out, unrounded."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from yacs.config import CfgNode

from dassl.config import get_cfg_default, not_determining, noted_methods
from dassl.utils.files import PathLike
from dassl.utils.logger import get_logger

logger = get_logger(__name__)


def append_record(fpath: PathLike, record: dict[str, Any]) -> None:
    """Adds one record to a JSON-lines file, in a single write that reaches the disk.

    A line that was cut short, by a kill or a full disk, is ended first: the records before and
    after it stay readable.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    path = Path(fpath)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = record_line(record).encode()
    binary = getattr(os, "O_BINARY", 0)  # Windows would write other line ends
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | binary, 0o666)
    try:
        if os.fstat(descriptor).st_size:
            os.lseek(descriptor, -1, os.SEEK_END)
            if os.read(descriptor, 1) != b"\n":
                line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, "the record was cut short: is the disk full?", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def record_line(record: Mapping[str, Any]) -> str:
    """Returns a record as a line of JSON."""
    return json.dumps(record, allow_nan=True) + "\n"


def read_records(fpath: PathLike) -> Iterator[dict[str, Any]]:
    """Yields the records of a file; a line that a kill cut short is passed over."""
    for line in record_lines(Path(fpath).read_bytes()):
        record = record_in(line)
        if record is None:
            logger.warning(f"Note: {fpath} has an incomplete line, passed over")
        else:
            yield record


def record_lines(content: bytes) -> list[bytes]:
    """Returns the lines of a file of records, whatever program has saved it again."""
    lines = (line.removeprefix(codecs.BOM_UTF8) for line in content.splitlines())
    return [line for line in lines if line.strip()]


def record_in(line: bytes) -> dict[str, Any] | None:
    """Returns the record in a line; None: it holds none."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):  # the former: also a number of 5,000 digits
        return None
    return record if isinstance(record, dict) else None


def accuracy_of(record: Mapping[str, Any], counted: bool = True) -> float | None:
    """Returns a record's accuracy in per cent; None: it has none that can be true.

    Args:
        record: of an evaluation.
        counted: the accuracy is 100 times `correct` by `total`, as far as these are recorded.
    """
    metrics = record.get("metrics")
    value = metrics.get("accuracy") if isinstance(metrics, dict) else None
    if not isinstance(value, float) or not 0 <= value <= 100:  # NaN is not
        return None
    total, correct = record.get("total"), record.get("correct")
    if not counted or (not total and not correct):
        return value
    if not (type(total) is type(correct) is int and 0 <= correct <= total):
        return None
    if not math.isclose(100 * correct / total, value, rel_tol=1e-6, abs_tol=1e-6):
        return None
    return value if _classes_agree(record.get("per_class"), total, correct) else None


def _classes_agree(rows: Any, total: int, correct: int) -> bool:
    """Whether the counts of the classes, if there are any, add up to those of the whole."""
    if not rows:
        return True
    try:
        sums = [sum(row[key] for row in rows) for key in ("total", "correct")]
    except (TypeError, KeyError):
        return False
    return sums == [total, correct]


def is_of(record: Mapping[str, Any], cfg: CfgNode) -> bool:
    """Whether a record is of a configuration's method, data and classes: one that was killed leaves
    its configuration beside the record of what its folder held before."""
    own = {
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"),
    }
    return all(record.get(key, value) == value for key, value in own.items())


def determining_settings(
    cfg: Mapping[str, Any], but: Sequence[str] | None = None
) -> dict[str, Any]:
    """Returns the settings that determine a result, as plain data.

    Args:
        cfg: a configuration, or what was read from a run's `config.yaml`.
        but: keys that do not determine a number; by default those that `cfg` itself knows of
            (`mark_not_determining`), or the engine's own where `cfg` is no configuration.
    """
    if but is None:
        but = not_determining(cfg if isinstance(cfg, CfgNode) else get_cfg_default())
    tree = json.loads(json.dumps(cfg))
    for key in but:
        *path, leaf = key.split(".")
        node = tree
        for name in path:
            node = node.get(name, {})
        node.pop(leaf, None)
    return tree


def own_settings(
    cfg: Mapping[str, Any],
    but: Sequence[str] | None = None,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Returns the settings that determine a result, those of other methods left out.

    A setting of another method counts if it is not at its default: a trainer may read it.

    Args:
        cfg, but: as `determining_settings` takes them.
        methods: the defaults, see `note_methods`; None: those that `cfg` itself knows.
    """
    tree = determining_settings(cfg, but)
    if methods is None:
        methods = noted_methods(cfg) if isinstance(cfg, CfgNode) else {}
    trainers = tree.get("TRAINER", {})
    for name, defaults in methods.items():
        place = tree if name.startswith("OPTIM_") else trainers
        if name == trainers.get("NAME", "").upper() or not isinstance(place.get(name), dict):
            continue
        defaults = json.loads(json.dumps(defaults))
        place[name] = {
            key: value
            for key, value in place[name].items()
            if key not in defaults or value != defaults[key]
        }
        if not place[name]:
            del place[name]
    return tree


def config_digest(cfg: Mapping[str, Any], but: Sequence[str] | None = None) -> str:
    """Returns SHA-256 over a run's own settings; results of equal digests may be averaged.

    Args:
        cfg, but: as `determining_settings` takes them.
    """
    settings = own_settings(cfg, but)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@cache
def versions() -> dict[str, str | None]:
    """Returns the versions behind a number: Python, torch, torchvision, and this code's commit."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "commit": _commit(),
    }


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None  # an unpacked archive has no history
    return result.stdout.strip()
