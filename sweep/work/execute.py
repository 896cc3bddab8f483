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
from dassl.utils.system_errors import explain
from sweep.plan.run import Run, evaluation_of
from sweep.work.basis import fingerprint
from sweep.work.folder import RunFolder

logger = get_logger(__name__)

LOOKING = 0.3  # seconds; who asks whether a run is at work holds its lock for a moment
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
        wandb: project of Weights & Biases that runs report to; empty: none.
    """

    run: Run
    output: Path
    root: str
    keep_epochs: bool = False
    extra: tuple[str, ...] = ()
    error_analysis: bool = False
    wandb: str = ""

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(self.run, self.output, self.root)

    @property
    def lacks_error_analysis(self) -> bool:
        return self.error_analysis and not self.folder.has_error_analysis()

    @property
    def opts(self) -> list[str]:
        """KEY VALUE pairs that change no number."""
        return [*self.extra, *(("TEST.ERROR_ANALYSIS", "True") if self.error_analysis else ())]

    @property
    def wandb_opts(self) -> list[str]:
        """KEY VALUE pairs with which the seeds of a cell are one group, as in a table."""
        # <part>/<dataset>/<shots>/<trainer>/<recipe>-<digest>
        cell = self.run.folder(Path()).parent
        settings = {
            "PROJECT": self.wandb,
            "GROUP": "/".join(cell.parts[1:]),
            "JOB_TYPE": self.run.part,
            "NAME": self.run.title,
        }
        pairs = ((f"TRAIN.WANDB.{key}", value) for key, value in settings.items())
        return [text for pair in pairs for text in pair] if self.wandb else []


@dataclass(frozen=True)
class Outcome:
    """How a job ended: "done", "known" (it was finished before), "tested" (it was, and was tested
    again for its error analysis), "untrained" (what it evaluates must be trained first), "busy" or
    "failed". `note` is for the progress line."""

    state: str
    accuracy: float | None = None
    seconds: float = 0.0
    error: str = ""
    note: str = ""


def execute(job: Job) -> Outcome:
    """Does a run unless it is finished; never raises but for Ctrl-C and the like."""
    try:
        for pause in (LOOKING, 0.0):
            try:
                with job.folder.lock():
                    return _execute_locked(job)
            except LockedError:
                time.sleep(pause)
        return Outcome("busy", error=f"another process works on {job.folder.path}")
    except (OSError, NotImplementedError) as error:  # a folder that cannot be written or locked
        sentence = explain(error) if isinstance(error, OSError) else None
        return Outcome("failed", error=sentence or f"{type(error).__name__}: {error}")


def _execute_locked(job: Job) -> Outcome:
    folder, before = job.folder, ""
    try:
        record, why = folder.judge()
        if record is not None and not job.lacks_error_analysis:
            return Outcome("known", record["metrics"]["accuracy"], folder.seconds() or 0.0)
        before = folder.error()
        folder.delete("error.txt")
        if folder.source is not None and (problem := _training_problem(folder.source, job.run)):
            return Outcome("untrained", error=problem)
        if record is not None and job.run.trains:  # to be tested again, with what it learned
            problem = folder.checkpoint_problem(job.run.epoch_tested or 0)
            record, why = (None, problem) if problem else (record, why)
        return _run(job, why) if record is None else _test_again(job, record)
    except LockedError:
        return Outcome("busy", error="another process works on its training")
    except Exception as error:  # whatever a trainer does wrong: the other runs go on
        message = _write_error(folder, error)
        return Outcome("failed", error=message, note=" (as before)" if message in before else "")


def _training_problem(trained: RunFolder, evaluation: Run) -> str:
    """Returns why there is nothing to evaluate; "" if there is.

    A training whose weights are damaged loses its record: it is to be done again.
    """
    if trained.record() is None:
        return "its training counts as not done"
    if problem := trained.checkpoint_problem(evaluation.epoch):
        with trained.lock():
            trained.start_anew()
    return problem


def _run(job: Job, why: str) -> Outcome:
    """Does a run, from its last checkpoint if it can go on there.

    Args:
        job: the run.
        why: what is wrong with what an earlier attempt left; "": nothing is known.
    """
    run, folder = job.run, job.folder
    start = time.perf_counter()
    problem = why or folder.resume_problem()
    if problem is not None:
        folder.start_anew()
    folder.clear_up()
    begun_with = folder.basis()
    if folder.source is not None:
        begun_with["trained"] = fingerprint(folder.source.record() or {})
    folder.write(rests_on=begun_with)
    problem = _train_or_test(job, resume=problem is None) or problem
    record, why = folder.judge()
    if record is None:
        why = why or f"the run ended without a record in {folder.path / 'results.jsonl'}"
        raise UserError(why)
    seconds = time.perf_counter() - start
    folder.write(rests_on=begun_with, seconds=seconds)
    if run.source is None and not job.keep_epochs:
        folder.delete_intermediate()
    note = f" (anew: {problem})" if problem else ""
    return Outcome("done", record["metrics"]["accuracy"], seconds, note=note)


def _train_or_test(job: Job, resume: bool) -> str:
    """Returns why a training that was to go on was begun anew; "" if it was not."""
    run, folder = job.run, job.folder
    args = run.arguments(job.output, job.root)
    if run.source is None:
        every = 1 if job.keep_epochs else max(1, run.epochs // CHECKPOINTS)
        args.opts += ["TRAIN.CHECKPOINT_FREQ", str(every)]
    args.opts += [*job.opts, *job.wandb_opts]
    problem = ""
    if resume:
        args.resume = args.output_dir
        try:
            train.main(args)
            return ""
        except CheckpointError as error:
            if str(folder.path) not in str(error):
                raise  # of CLIP, say: what was learned is not to blame
            problem = str(error)
        args.resume = ""
        begun_with = folder.basis()
        folder.start_anew()
        folder.write(rests_on=begun_with)
    args.overwrite = run.source is None  # of a run with other settings, or a damaged one
    train.main(args)
    return problem


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
