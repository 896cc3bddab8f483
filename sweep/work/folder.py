"""What a run leaves in its folder, and what that says: finished, failed, at work, or not begun.

results.jsonl   the engine's record; a run is finished when a record says so, not before
run.json        what the run is (`Run.as_dict`), its digest, and the seconds it took
config.yaml     the merged configuration, written by `train.main`
error.txt       why the last attempt failed; deleted by the next attempt
predictions.csv, confusion.csv, confused.png: the error analysis, if asked for
lock            held by the process that works on the run; released by its death
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import yaml

from dassl.evaluation import error_analysis
from dassl.utils import UserError, read_json, write_atomically, write_json
from dassl.utils.checkpoint import POINTER_FILE
from dassl.utils.locks import file_lock, is_locked
from dassl.utils.results import read_records
from sweep.plan.run import Run, flat, own_settings

FINISHED, FAILED, RUNNING, WAITING = "finished", "failed", "running", "waiting"


class RunFolder:
    """The folder of one run.

    Args:
        run: what is run.
        output: the sweep's output folder.

    Attributes:
        path: the run's folder below it, which may not exist yet.
    """

    def __init__(self, run: Run, output: Path) -> None:
        self.run = run
        self.path = run.folder(output)

    # --- what it says -----------------------------------------------------------------------------

    def state(self) -> str:
        """Returns "finished", "running", "failed" or "waiting"."""
        if self.record() is not None:
            return FINISHED
        if is_locked(self.path / "lock"):
            return RUNNING
        return FAILED if self.error() else WAITING

    def record(self) -> dict[str, Any] | None:
        """Returns the last record that says the run is finished, or None."""
        path = self.path / "results.jsonl"
        if not path.is_file() or self.settings_changed():
            return None
        found = [record for record in read_records(path) if self._says_finished(record)]
        return found[-1] if found else None

    def _says_finished(self, record: dict[str, Any]) -> bool:
        epoch = self.run.epoch_tested
        return (
            record.get("status") == "finished"
            and record.get("split") == "test"
            and record.get("seed") == self.run.seed
            and record.get("trainer") == self.run.trainer
            and (epoch is None or record.get("epoch") in (None, epoch))
            and isinstance(record.get("metrics", {}).get("accuracy"), float)
        )

    def settings_changed(self) -> bool:
        """Returns whether the run was made with other settings than it would be made with now.

        Without a config.yaml nothing is known to differ.
        """
        config = read_config(self.path)
        if config is None:
            return False
        then, now = flat(own_settings(config)), flat(self.run.settings)
        return any(then[key] != now[key] for key in then.keys() & now.keys())

    def seconds(self) -> float | None:
        """Returns how long the finished run took, as far as it is known."""
        try:
            return read_json(self.path / "run.json").get("seconds")
        except UserError:
            return None

    def error(self) -> str:
        """Returns the last attempt's error, "" if there was none."""
        path = self.path / "error.txt"
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""

    def has_error_analysis(self) -> bool:
        """Returns whether predictions and confusions are written."""
        return all((self.path / name).is_file() for name in error_analysis.FILES)

    def can_resume(self) -> bool:
        """Returns whether an interrupted training left a checkpoint."""
        if self.run.source is not None or self.settings_changed():
            return False
        return any(self.path.glob(f"*/{POINTER_FILE}"))

    # --- what is done to it -----------------------------------------------------------------------

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Holds the run; the system lets go when the process ends, however it ends.

        Raises:
            LockedError: another process holds it.
        """
        return file_lock(self.path / "lock")

    def write(self, **more: Any) -> None:
        """Writes run.json."""
        content = {"run": self.run.as_dict(), "digest": self.run.digest, **more}
        write_json(content, self.path / "run.json")

    def write_error(self, text: str) -> None:
        """Writes error.txt, unless the disk is full."""
        path, content = self.path / "error.txt", f"{text}\n".encode()
        with contextlib.suppress(OSError):
            write_atomically(path, lambda part: Path(part).write_bytes(content))

    def delete(self, *names: str) -> None:
        """Deletes files that may not exist."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def delete_learned(self) -> None:
        """Deletes what an interrupted training learned, so that the next starts anew."""
        for pointer in self.path.glob(f"*/{POINTER_FILE}"):
            shutil.rmtree(pointer.parent)

    def delete_intermediate(self) -> None:
        """Deletes the checkpoints that were only there to resume from."""
        for path in self.path.glob("progress-*.pt"):
            path.unlink(missing_ok=True)
        for path in self.path.glob("*/model.pth.tar-*"):
            if path.name != f"model.pth.tar-{self.run.epochs}":
                path.unlink(missing_ok=True)


def read_config(folder: Path) -> dict[str, Any] | None:
    """Returns the settings in a run's config.yaml; None if there is no such file."""
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one, where there is one
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # both are safe loaders
