"""Does one run in this process: what every executor calls, wherever it works."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import train
from dassl.evaluation import error_analysis
from dassl.utils import CheckpointError, UserError
from dassl.utils.locks import LockedError
from dassl.utils.logger import get_logger
from sweep.plan.run import Run, evaluation_of
from sweep.work.folder import RunFolder

logger = get_logger(__name__)

CHECKPOINTS = 10  # a training is saved about so many times, to be resumed from


@dataclass(frozen=True)
class Job:
    """A run with where to read and write, and how.

    Attributes:
        output: the sweep's output folder.
        root: folder that holds the datasets.
        keep_epochs: keep the checkpoint of every epoch.
        extra: KEY VALUE pairs that say how the run is done, not what it computes.
        error_analysis: also write predictions and confusions; a finished run that lacks them is
            tested again for them, not trained again.
    """

    run: Run
    output: Path
    root: str
    keep_epochs: bool = False
    extra: tuple[str, ...] = ()
    error_analysis: bool = False

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(self.run, self.output)

    @property
    def lacks_error_analysis(self) -> bool:
        return self.error_analysis and not self.folder.has_error_analysis()

    @property
    def opts(self) -> list[str]:
        """KEY VALUE pairs that change no number."""
        return [*self.extra, *(("TEST.ERROR_ANALYSIS", "True") if self.error_analysis else ())]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: "done", "known" (it was finished before), "tested" (it was, and was tested
    again for its error analysis), "busy" or "failed". `note` is for the progress line."""

    state: str
    accuracy: float | None = None
    seconds: float = 0.0
    error: str = ""
    note: str = ""


def execute(job: Job) -> Outcome:
    """Does a run unless it is finished; never raises but for Ctrl-C and the like."""
    try:
        with job.folder.lock():
            return _execute_locked(job)
    except LockedError:
        return Outcome("busy", error=f"another process works on {job.folder.path}")
    except (OSError, NotImplementedError) as error:  # a folder that cannot be written or locked
        return Outcome("failed", error=f"{type(error).__name__}: {error}")


def _execute_locked(job: Job) -> Outcome:
    record = job.folder.record()
    if record is not None and not job.lacks_error_analysis:
        return Outcome("known", record["metrics"]["accuracy"], job.folder.seconds() or 0.0)
    try:
        job.folder.delete("error.txt")
        return _run(job) if record is None else _test_again(job, record)
    except Exception as error:  # whatever a trainer does wrong: the other runs go on
        return Outcome("failed", error=_write_error(job.folder, error))


def _run(job: Job) -> Outcome:
    folder = job.folder
    start = time.perf_counter()
    folder.delete(*error_analysis.FILES)  # of a run with other settings
    folder.write()
    _train_or_test(job)
    record = folder.record()
    if record is None:
        raise RuntimeError(f"the run ended without a record in {folder.path / 'results.jsonl'}")
    seconds = time.perf_counter() - start
    folder.write(seconds=seconds)
    if job.run.source is None and not job.keep_epochs:
        folder.delete_intermediate()
    return Outcome("done", record["metrics"]["accuracy"], seconds)


def _train_or_test(job: Job) -> None:
    run, folder = job.run, job.folder
    args = run.arguments(job.output, job.root)
    if run.source is None:
        every = 1 if job.keep_epochs else max(1, run.epochs // CHECKPOINTS)
        args.opts += ["TRAIN.CHECKPOINT_FREQ", str(every)]
    args.opts += job.opts
    if folder.can_resume():
        args.resume = args.output_dir
        try:
            train.main(args)
            return
        except CheckpointError as error:
            logger.warning(f"Note: {error}: starting anew")
            folder.delete_learned()
            args.resume = ""
    train.main(args)


def _test_again(job: Job, record: Mapping[str, Any]) -> Outcome:
    """Evaluates a finished run in a folder of its own and keeps nothing but the error analysis."""
    run, path = job.run, job.folder.path
    start = time.perf_counter()
    scratch = path / ".error_analysis"
    shutil.rmtree(scratch, ignore_errors=True)  # of an attempt that was killed
    args = (evaluation_of(run) if run.trains else run).arguments(job.output, job.root)
    args.output_dir, args.eval_only = str(scratch), True
    args.opts += job.opts
    try:
        accuracy = train.main(args)
        for name in error_analysis.FILES:
            os.replace(scratch / name, path / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    recorded = record["metrics"]["accuracy"]  # on another device, a few images may differ
    note = "" if accuracy == recorded else f" (its record: {recorded:.3f}%)"
    return Outcome("tested", accuracy, time.perf_counter() - start, note=note)


def _write_error(folder: RunFolder, error: Exception) -> str:
    """Writes the error beside the results; returns its first line."""
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    folder.write_error(message if isinstance(error, UserError) else traceback.format_exc())
    return message.strip().splitlines()[0] if message.strip() else type(error).__name__
