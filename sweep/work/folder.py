"""What a run leaves in its folder, and what that says: finished, failed, at work, or not begun.

results.jsonl   the engine's record; a run is finished when a record says so, not before
run.json        what the run is (`Run.as_dict`), its digest, what it rests on, the seconds it took
config.yaml     the merged configuration, written by `train.main`
error.txt       why the last attempt failed; deleted by the next attempt
predictions.csv, confusion.csv, confused.png: the error analysis, if asked for
lock            held by the process of a sweep that works on the run; released by its death
.running        held by `train.main` while it works, whoever called it
.before/        the latest results that did not count any more, and what belonged to them
.unfinished/    what the latest attempt without results left that could not be gone on with

Any of them may be damaged. What speaks against a record, or cannot be read, makes the run one that
is to be done anew; what is absent says nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from dassl.engine import run_folder
from dassl.engine.identity import flat
from dassl.evaluation import error_analysis
from dassl.utils import write_atomically, write_json
from dassl.utils.locks import LockedError, file_lock, is_locked
from dassl.utils.results import accuracy_of
from dassl.utils.text import visible
from sweep.plan.own import place_below
from sweep.plan.run import Run, settings_but_seed
from sweep.work import checkpoints
from sweep.work.basis import (
    Basis,
    basis_of,
    described,
    differing,
    fingerprint,
    recorded_basis,
)
from sweep.work.kept import (
    DamagedFileError,
    content_of,
    drop_broken_lines,
    json_of,
    records_in,
    say_once,
    yaml_of,
)

FINISHED, FAILED, RUNNING, WAITING = "finished", "failed", "running", "waiting"
RECORDS, RUN, CONFIG, ERROR = "results.jsonl", "run.json", "config.yaml", "error.txt"
LOCK, AT_WORK = "lock", run_folder.LOCK
BEFORE, UNFINISHED = ".before", ".unfinished"


class RunFolder:
    """The folder of one run.

    Args:
        run: what is run.
        output: the sweep's output folder.
        root: folder that holds the datasets; empty: the one that the run was made with.

    Attributes:
        path: the run's folder below `output`, which may not exist yet.
    """

    def __init__(self, run: Run, output: Path, root: str = "") -> None:
        self.run, self.output, self.root = run, output, root
        self.path = run.folder(output)

    @cached_property
    def source(self) -> RunFolder | None:
        """The folder of the training that the run evaluates; None: it evaluates its own."""
        if self.run.source is None:
            return None
        return RunFolder(self.run.source, self.output, self.root)

    # --- what it says -----------------------------------------------------------------------------

    def state(self) -> str:
        """Returns "finished", "running", "failed" or "waiting"."""
        if self.record() is not None:
            return FINISHED
        with contextlib.suppress(OSError):  # nobody who may not write there works there
            if any(is_locked(self.path / name) for name in (LOCK, AT_WORK)):
                return RUNNING
        return FAILED if self.error() else WAITING

    def record(self) -> dict[str, Any] | None:
        """Returns the last record that says the run is finished, or None."""
        return self.judge()[0]

    def judge(self) -> tuple[dict[str, Any] | None, str]:
        """Returns the record of a finished run, or None and why there is none.

        The reason is empty if nothing says that the run was ever finished; others are logged once.
        """
        try:
            record, reason = self._last_record()
            if record is not None and self.settings_changed():
                return None, "it was made with other settings"
            if record is not None:
                reason = self._outdated(record)
            return (None if reason else record), reason
        except DamagedFileError as error:
            say_once(f"{error}: the run counts as not done")
            return None, str(error)

    def _last_record(self) -> tuple[dict[str, Any] | None, str]:
        records = [r for r in records_in(self.path / RECORDS) if self._says_finished(r)]
        if not records:
            return None, ""
        counted = self.run.settings["TEST"]["EVALUATOR"] == "Classification"
        if accuracy_of(records[-1], counted) is None:
            reason = "its record holds no accuracy, or one that its counts contradict"
            say_once(f"{self.path / RECORDS}: {reason}: the run counts as not done")
            return None, reason
        found = {accuracy_of(record, counted) for record in records} - {None}
        if len(found) > 1:
            shown = ", ".join(f"{value:.3f}%" for value in sorted(found))
            say_once(f"{self.path / RECORDS}: its records say {shown}: the last one counts")
        return records[-1], ""

    def _says_finished(self, record: Mapping[str, Any]) -> bool:
        dataset, epoch = self.run.settings["DATASET"], self.run.epoch_tested
        known = {
            "dataset": dataset["NAME"],
            "classes": dataset["SUBSAMPLE_CLASSES"],
            "shots": dataset["NUM_SHOTS"],
        }
        return (
            record.get("status") == "finished"
            and record.get("split") == "test"
            and record.get("seed") == self.run.seed
            and record.get("trainer") == self.run.trainer
            and (epoch is None or record.get("epoch") in (None, epoch))
            and all(record.get(key, value) == value for key, value in known.items())
        )

    def _outdated(self, record: Mapping[str, Any]) -> str:
        """Returns why a record does not say what a run would find now; "" if it does."""
        then, now = recorded_basis(record, self._begun_with()), self.basis()
        changed = differing(then, now)
        if self.source is not None and not changed and self.source.path.is_dir():
            trained = self.source.record()
            if trained is None or then.get("trained", fingerprint(trained)) != fingerprint(trained):
                changed = ["trained"]
        if not then.keys() & now.keys() and now:
            say_once(
                "records that do not say what they rest on (weights, split), of an earlier "
                f"version, count as they are; the first: {self.path / RECORDS}",
                key="no basis",
            )
        if not changed:
            return ""
        reason = f"{described(changed[0], self.run)} is not the one that it was made with"
        say_once(
            f"{described(changed[0], self.run)} is not the one that results were made with: "
            f"they count as not done; the first: {self.path}",
            key=("basis", reason),
        )
        return reason

    def basis(self) -> Basis:
        """Returns what the run would rest on now, as far as it can be told."""
        root = place_below(self.run.dataset, self.root) or self._root_then()
        return basis_of(self.run, root)

    def _root_then(self) -> str:
        dataset = (yaml_of(self.path / CONFIG) or {}).get("DATASET")
        root = dataset.get("ROOT") if isinstance(dataset, dict) else None
        return root if isinstance(root, str) else ""

    def settings_changed(self) -> bool:
        """Returns whether the run was made with other settings than it would be made with now.

        Without a config.yaml nothing is known to differ.

        Raises:
            DamagedFileError: it is damaged.
        """
        then, now = settings_in(self.path), flat(self.run.settings)
        return then is not None and any(then[key] != now[key] for key in then.keys() & now.keys())

    def _kept(self) -> dict[str, Any]:
        """Returns what is in run.json; raises DamagedFileError."""
        path = self.path / RUN
        content = json_of(path)
        if content is not None and content.get("digest") != self.run.digest:
            raise DamagedFileError(path, "it is of another run")
        return content or {}

    def _begun_with(self) -> Basis:
        basis = self._kept().get("rests_on", {})
        if not isinstance(basis, dict):
            raise DamagedFileError(self.path / RUN, "it does not say what the run rests on")
        return basis

    def weights(self, record: Mapping[str, Any]) -> str | None:
        """Returns the digest of the weights behind a record, as far as it is known."""
        try:
            return recorded_basis(record, self._begun_with()).get("weights")
        except DamagedFileError:
            return None

    def seconds(self) -> float | None:
        """Returns how long the finished run took, as far as it is known."""
        try:
            seconds = self._kept().get("seconds")
        except DamagedFileError:
            return None
        is_time = isinstance(seconds, int | float) and 0 <= seconds < float("inf")
        return seconds if is_time else None

    def error(self) -> str:
        """Returns the last attempt's error, "" if there was none."""
        try:
            return visible((content_of(self.path / ERROR) or b"").decode(errors="replace")).strip()
        except DamagedFileError as error:
            return str(error)

    def has_error_analysis(self) -> bool:
        """Returns whether predictions and confusions are written."""
        return all((self.path / name).is_file() for name in error_analysis.FILES)

    def can_resume(self) -> bool:
        """Returns whether an interrupted training left all that is needed to go on."""
        return self.resume_problem() is None

    def resume_problem(self) -> str | None:
        """Returns why a training cannot go on: "" if there is nothing to go on from; None: it can.

        Without all of what it was, a resumed training would end with other numbers.
        """
        if self.run.source is not None or not checkpoints.are_in(self.path):
            return ""
        try:
            for name in (CONFIG, RUN):
                if content_of(self.path / name) is None:
                    return f"{self.path / name} is missing"
            if self.settings_changed():
                return "it was begun with other settings"
            changed = differing(self._begun_with(), self.basis())
        except DamagedFileError as error:
            return str(error)
        if changed:
            return f"{described(changed[0], self.run)} is not the one that it was begun with"
        return checkpoints.resume_problem(self.path, self.run.epochs)

    def checkpoint_problem(self, epoch: int) -> str:
        """Returns what is wrong with the weights that a finished training left; "" if nothing is.

        Args:
            epoch: after which they were saved; 0: the best on validation.
        """
        return checkpoints.problem(self.path, self.run, epoch)

    # --- what is done to it -----------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run; the system lets go when the process ends, however it ends.

        Raises:
            LockedError: another process holds it, or somebody has started it by hand.
        """
        path = self.path / LOCK
        if os.path.lexists(path) and not path.is_file():
            remove(path)  # nobody can hold that
        with file_lock(path):
            if is_locked(self.path / AT_WORK):
                raise LockedError(f"another process holds {self.path / AT_WORK}")
            yield

    def write(self, **more: Any) -> None:
        """Writes run.json."""
        content = {"run": self.run.as_dict(), "digest": self.run.digest, **more}
        write_json(content, self.path / RUN)

    def write_error(self, text: str) -> None:
        """Writes error.txt, unless the disk is full."""
        path, content = self.path / ERROR, f"{text}\n".encode(errors="replace")
        with contextlib.suppress(OSError):
            write_atomically(path, lambda part: Path(part).write_bytes(content))

    def delete(self, *names: str) -> None:
        """Deletes files that may not exist."""
        for name in names:
            remove(self.path / name)

    def clear_up(self) -> None:
        """Takes out of the way what a run would stumble over, and broken lines between records."""
        drop_broken_lines(self.path / RECORDS)
        self.delete(*error_analysis.FILES)
        for pattern in ("log.txt*", *checkpoints.PATTERNS):
            for path in self.path.glob(pattern):
                if not path.is_file():
                    remove(path)
        for path in self.path.glob(".*.part"):  # of a killed attempt: we hold the lock
            remove(path)

    def start_anew(self) -> None:
        """Puts what an earlier attempt left out of the way; of each kind only the last is kept.

        The record goes first, then run.json: however far it gets, nothing that is left is taken for
        a finished run, or for one to go on with. Attempts without results take no results' place.
        """
        first, places = (RECORDS, RUN), (LOCK, AT_WORK, BEFORE, UNFINISHED)
        before = self.path / (BEFORE if _has_content(self.path / RECORDS) else UNFINISHED)
        with contextlib.suppress(FileNotFoundError):
            left = [path for path in self.path.iterdir() if path.name not in places]
            if left:
                remove(before)
                before.mkdir()
            for path in sorted(left, key=lambda path: (path.name not in first, path.name)):
                os.replace(path, before / path.name)

    def delete_intermediate(self) -> None:
        """Deletes the checkpoints that were only there to resume from."""
        checkpoints.delete_intermediate(self.path, self.run.epochs)


def settings_in(folder: Path) -> dict[str, Any] | None:
    """Returns the determining settings in a run's config.yaml, by full key; None: there is none.

    Raises:
        DamagedFileError: the file holds no settings.
    """
    config = yaml_of(folder / CONFIG)
    if config is None:
        return None
    try:
        return flat(settings_but_seed(config))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedFileError(folder / CONFIG, f"it lacks settings: {error!r}") from None


def _has_content(path: Path) -> bool:
    """Whether something is there, and not an empty file."""
    return os.path.lexists(path) and not (path.is_file() and path.stat().st_size == 0)


def remove(path: Path) -> None:
    """Deletes a file, or a folder that is in a file's place; it need not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
