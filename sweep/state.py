"""What a run's folder says: finished, failed, at work, or not begun.

results.jsonl   the engine's record; a run is finished when a record says so, not before
run.json        what the run is (`Run.as_dict`), its digest, and the seconds it took
error.txt       why the last attempt failed; deleted by the next attempt
predictions.csv, confusion.csv, confused.png: the error analysis, if asked for
lock            held (flock) by the process that works on the run; released by its death
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dassl.engine.progress import has_progress
from dassl.evaluation import error_analysis
from dassl.utils import read_json, write_json
from dassl.utils.checkpoint import POINTER_FILE
from dassl.utils.errors import UserError
from dassl.utils.results import read_records
from sweep.run import Run, settings_differ

FINISHED, FAILED, RUNNING, WAITING = "finished", "failed", "running", "waiting"


class BusyError(RuntimeError):
    """Another process works on the run."""


def record_of(run: Run, output: Path) -> dict[str, Any] | None:
    """Returns the record that says the run is finished, or None."""
    path = run.folder(output) / "results.jsonl"
    if not path.is_file() or settings_differ(run, path.parent):
        return None
    found = None
    for record in read_records(path):
        found = record if _says_finished(record, run) else found
    return found


def _says_finished(record: dict[str, Any], run: Run) -> bool:
    epoch = run.epoch_tested
    return (
        record.get("status") == "finished"
        and record.get("split") == "test"
        and record.get("seed") == run.seed
        and record.get("trainer") == run.trainer
        and (epoch is None or record.get("epoch") in (None, epoch))
        and isinstance(record.get("metrics", {}).get("accuracy"), float)
    )


def has_error_analysis(run: Run, output: Path) -> bool:
    """Returns whether a run's predictions and confusions are written."""
    return all((run.folder(output) / name).is_file() for name in error_analysis.FILES)


def error_of(run: Run, output: Path) -> str:
    """Returns the last attempt's error, "" if there was none."""
    path = run.folder(output) / "error.txt"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def state_of(run: Run, output: Path) -> str:
    """Returns "finished", "running", "failed" or "waiting"."""
    if record_of(run, output) is not None:
        return FINISHED
    if _is_locked(run.folder(output) / "lock"):
        return RUNNING
    return FAILED if error_of(run, output) else WAITING


def seconds_of(run: Run, output: Path) -> float | None:
    """Returns how long the finished run took, as far as it is known."""
    try:
        return read_json(run.folder(output) / "run.json").get("seconds")
    except UserError:
        return None


def write_run(run: Run, output: Path, **more: Any) -> None:
    """Writes `run.json`."""
    content = {"run": run.as_dict(), "digest": run.digest, **more}
    write_json(content, run.folder(output) / "run.json")


def can_resume(run: Run, output: Path) -> bool:
    """Returns whether an interrupted training left a checkpoint."""
    folder = run.folder(output)
    if run.source is not None or settings_differ(run, folder):
        return False
    return has_progress(folder) or any(folder.glob(f"*/{POINTER_FILE}"))


@contextlib.contextmanager
def lock(run: Run, output: Path) -> Iterator[None]:
    """Holds the run; the kernel lets go when the process ends, however it ends.

    Raises:
        BusyError: another process holds it.
    """
    path = run.folder(output) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process works on {path.parent}") from None
        yield
    finally:
        os.close(descriptor)


def _is_locked(path: Path) -> bool:
    if not path.is_file():
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
