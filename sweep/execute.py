"""Carries out one run in this process: what every executor calls, wherever it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import train
from dassl.evaluation import error_analysis
from dassl.utils import CheckpointError, UserError, write_atomically
from sweep.run import Run, evaluation_of
from sweep.state import (
    BusyError,
    can_resume,
    has_error_analysis,
    lock,
    record_of,
    seconds_of,
    write_run,
)

CHECKPOINTS = 10  # a training is saved about so many times, to be resumed from


@dataclass(frozen=True)
class Job:
    """A run with where to read and write, and how.

    Attributes:
        output: the sweep's output folder.
        root: folder that holds the data sets.
        keep_epochs: keep the checkpoint of every epoch.
        extra: KEY VALUE pairs that say how a run is carried out, not what it computes.
        error_analysis: also write predictions and confusions; a finished run that lacks them is
            tested again for them, not trained again.
    """

    run: Run
    output: Path
    root: str
    keep_epochs: bool = False
    extra: tuple[str, ...] = ()
    error_analysis: bool = False


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
        with lock(job.run, job.output):
            return _execute_locked(job)
    except BusyError as error:
        return Outcome("busy", error=str(error))
    except OSError as error:  # a folder that cannot be written
        return Outcome("failed", error=f"{type(error).__name__}: {error}")


def _execute_locked(job: Job) -> Outcome:
    record = record_of(job.run, job.output)
    complete = has_error_analysis(job.run, job.output) or not job.error_analysis
    if record is not None and complete:
        seconds = seconds_of(job.run, job.output) or 0.0
        return Outcome("known", record["metrics"]["accuracy"], seconds)
    folder = job.run.folder(job.output)
    try:
        (folder / "error.txt").unlink(missing_ok=True)
        return _carry_out(job) if record is None else _test_again(job, record)
    except Exception as error:  # whatever a trainer does wrong: the other runs go on
        return Outcome("failed", error=_keep_error(folder, error))


def _carry_out(job: Job) -> Outcome:
    folder = job.run.folder(job.output)
    start = time.perf_counter()
    for name in error_analysis.FILES:  # of a run with other settings
        (folder / name).unlink(missing_ok=True)
    write_run(job.run, job.output)
    _train_or_test(job)
    record = record_of(job.run, job.output)
    if record is None:
        raise RuntimeError(f"the run ended without a record in {folder / 'results.jsonl'}")
    seconds = time.perf_counter() - start
    write_run(job.run, job.output, seconds=seconds)
    _tidy(job)
    return Outcome("done", record["metrics"]["accuracy"], seconds)


def _test_again(job: Job, record: Mapping[str, Any]) -> Outcome:
    """Evaluates a finished run in a folder of its own and keeps nothing but the error analysis."""
    run, folder = job.run, job.run.folder(job.output)
    start = time.perf_counter()
    scratch = folder / ".error_analysis"
    shutil.rmtree(scratch, ignore_errors=True)  # of an attempt that was killed
    learned = run.source is None and run.shots
    args = (evaluation_of(run) if learned else run).arguments(job.output, job.root)
    args.output_dir, args.eval_only = str(scratch), True
    args.opts = [*args.opts, *_how(job)]
    try:
        with _silence():
            accuracy = train.main(args)
        for name in error_analysis.FILES:
            os.replace(scratch / name, folder / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    recorded = record["metrics"]["accuracy"]  # on another device, a few images may differ
    note = "" if accuracy == recorded else f" (its record: {recorded:.3f}%)"
    return Outcome("tested", accuracy, time.perf_counter() - start, note=note)


def _how(job: Job) -> list[str]:
    """Returns the KEY VALUE pairs that change no number."""
    return [*job.extra, *(("TEST.ERROR_ANALYSIS", "True") if job.error_analysis else ())]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield  # log.txt has every line


def _train_or_test(job: Job) -> None:
    args = job.run.arguments(job.output, job.root)
    if job.run.source is None:
        every = 1 if job.keep_epochs else max(1, job.run.epochs // CHECKPOINTS)
        args.opts = [*args.opts, "TRAIN.CHECKPOINT_FREQ", str(every)]
    args.opts = [*args.opts, *_how(job)]
    args.overwrite = job.run.source is None  # of a run with other settings, or a damaged one
    with _silence():
        if not can_resume(job.run, job.output):
            train.main(args)
            return
        try:
            train.main(_resuming(args))
        except CheckpointError as error:
            print(f"{error}: starting anew")
            for pointer in job.run.folder(job.output).glob("*/checkpoint"):
                shutil.rmtree(pointer.parent)
            train.main(args)


def _resuming(args: Namespace) -> Namespace:
    return Namespace(**{**vars(args), "resume": args.output_dir, "overwrite": False})


def _tidy(job: Job) -> None:
    """Deletes the checkpoints that were only there to resume from."""
    run = job.run
    if job.keep_epochs or run.source is not None:
        return
    for path in run.folder(job.output).glob("progress-*.pt"):
        path.unlink(missing_ok=True)
    for path in run.folder(job.output).glob("*/model.pth.tar-*"):
        if path.name != f"model.pth.tar-{run.epochs}":
            path.unlink(missing_ok=True)


def _keep_error(folder: Path, error: Exception) -> str:
    """Writes the error beside the results; returns its first line."""
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    text = message if isinstance(error, UserError) else traceback.format_exc()
    with contextlib.suppress(OSError):  # the disk may be full
        write_atomically(folder / "error.txt", lambda part: Path(part).write_text(text + "\n"))
    return message.strip().splitlines()[0] if message.strip() else type(error).__name__
