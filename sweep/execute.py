"""Carries out one run in this process: what every executor calls, wherever it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import traceback
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import train
from dassl.utils import CheckpointError, UserError, write_atomically
from sweep.run import Run
from sweep.state import BusyError, can_resume, lock, record_of, seconds_of, write_run

CHECKPOINTS = 10  # a training is saved about so many times, to be resumed from


@dataclass(frozen=True)
class Job:
    """A run with where to read and write, and how.

    Attributes:
        output: the sweep's output folder.
        root: folder that holds the data sets.
        keep_epochs: keep the checkpoint of every epoch.
        extra: KEY VALUE pairs that say how a run is carried out, not what it computes.
    """

    run: Run
    output: Path
    root: str
    keep_epochs: bool = False
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a job ended: "done", "known" (it was finished before), "busy" or "failed"."""

    state: str
    accuracy: float | None = None
    seconds: float = 0.0
    error: str = ""


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
    if record is not None:
        seconds = seconds_of(job.run, job.output) or 0.0
        return Outcome("known", record["metrics"]["accuracy"], seconds)
    folder = job.run.folder(job.output)
    start = time.perf_counter()
    try:
        (folder / "error.txt").unlink(missing_ok=True)
        write_run(job.run, job.output)
        _train_or_test(job)
        record = record_of(job.run, job.output)
        if record is None:
            raise RuntimeError(f"the run ended without a record in {folder / 'results.jsonl'}")
        seconds = time.perf_counter() - start
        write_run(job.run, job.output, seconds=seconds)
        _tidy(job)
    except Exception as error:  # whatever a trainer does wrong: the other runs go on
        return Outcome("failed", error=_keep_error(folder, error))
    return Outcome("done", record["metrics"]["accuracy"], seconds)


def _train_or_test(job: Job) -> None:
    args = job.run.arguments(job.output, job.root)
    if job.run.source is None:
        every = 1 if job.keep_epochs else max(1, job.run.epochs // CHECKPOINTS)
        args.opts = [*args.opts, "TRAIN.CHECKPOINT_FREQ", str(every)]
    args.opts = [*args.opts, *job.extra]
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        # log.txt has every line
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
    return Namespace(**{**vars(args), "resume": args.output_dir})


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
