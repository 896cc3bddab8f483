"""Runs a plan: keeps the executor busy, says what runs and what is done, sums up at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dassl.utils.logger import get_logger
from dassl.utils.text import counted
from sweep.plan.run import Run, evaluation_of
from sweep.work.basis import data_stay
from sweep.work.estimate import Estimator, TimeLeft, duration
from sweep.work.execute import Job, Outcome

logger = get_logger(__name__)

EVERY = 60.0  # seconds between lines that say what is running
BUSY_RETRY = 2.0  # seconds until a run that another process works on is tried again


class Executor(Protocol):
    """Runs jobs somewhere: `local.py`, `ray_pool.py`."""

    @property
    def free(self) -> int: ...

    def submit(self, job: Job) -> None: ...

    def wait(self, timeout: float | None = None) -> list[tuple[Job, Outcome]]: ...

    def close(self) -> None: ...


class Sweep:
    """The state of a plan while it is run.

    Args:
        jobs: every training before its evaluations.
        at_once: number of jobs that are run at the same time.
        every: seconds after which a line says what is running, with its log; 0: never.

    Attributes:
        jobs: run → job.
        done: finished, now or earlier.
        to_test_again: finished earlier, but the error analysis that is asked for is lacking.
        failed: run → error; evaluations of a training that failed included.
    """

    def __init__(self, jobs: Sequence[Job], at_once: int = 1, every: float = EVERY) -> None:
        self.jobs = {job.run: job for job in jobs}
        self.at_once, self.every = at_once, every
        self.estimator = Estimator()
        self.done: set[Run] = set()
        self.to_test_again: set[Run] = set()
        self.failed: dict[Run, str] = {}
        self.running: dict[Run, float] = {}  # → when it began
        self.told = 0.0  # when it was said last what is running
        self.busy: dict[Run, float] = {}  # → when to try again
        self.put_off: set[Run] = set()  # evaluations whose training has to be done again

    def find_finished(self) -> None:
        """Finds the runs that records say are finished."""
        jobs = dict(self.jobs)
        for run, job in self.jobs.items():
            if run.source is not None:  # it may be no part of the plan
                jobs.setdefault(run.source, replace(job, run=run.source))
        with data_stay():
            for run, job in sorted(jobs.items(), key=lambda item: item[0].source is not None):
                if run.source in self.jobs and run.source not in self.done | self.to_test_again:
                    continue  # it will be trained anew
                if job.folder.record() is not None:
                    (self.to_test_again if job.lacks_error_analysis else self.done).add(run)
                    seconds = job.folder.seconds()
                    if seconds:
                        self.estimator.learn(run, seconds)

    def open_runs(self) -> list[Run]:
        return [run for run in self.jobs if run not in self.done and run not in self.failed]

    def time_left(self) -> TimeLeft:
        return self.estimator.time_left(map(self._next_step, self.open_runs()), self.at_once)

    def _next_step(self, run: Run) -> Run:
        """Returns what is still to be done of a run: all of it, or its evaluation."""
        return evaluation_of(run) if run in self.to_test_again and run.trains else run

    def run(self, executor: Executor) -> None:
        """Does all runs that are not done, with their training first."""
        self.told = time.monotonic()
        try:
            while True:
                self._submit(executor)
                self._say_running()
                if self.running:
                    for job, outcome in executor.wait(BUSY_RETRY):
                        self._handle(job.run, outcome)
                elif self.open_runs():
                    time.sleep(BUSY_RETRY)  # others work on all that is left
                else:
                    return
        finally:
            executor.close()

    def _submit(self, executor: Executor) -> None:
        for run in self.open_runs():
            if not executor.free:
                return
            if run in self.running or self.busy.get(run, 0.0) > time.monotonic():
                continue
            source = run.source
            if source is None or source in self.done | self.to_test_again:
                self.running[run] = time.monotonic()
                executor.submit(self.jobs[run])
                logger.debug(f"{self._count()} begins  {run.title}: {self.log_of(run)}")
            elif source in self.failed or source not in self.jobs:
                why = "its training failed" if source in self.failed else "nothing trained it yet"
                self._handle(run, Outcome("failed", error=f"not run: {why}"))

    def _handle(self, run: Run, outcome: Outcome) -> None:
        """Keeps how a run ended, and says it."""
        self.running.pop(run, None)
        if outcome.state == "busy":
            if run not in self.busy:
                logger.info(f"{self._count()} waiting {run.title}: {outcome.error}")
            self.busy[run] = time.monotonic() + BUSY_RETRY
            return
        self.busy.pop(run, None)
        if outcome.state == "untrained":
            self._train_again(run, outcome.error)
            return
        if outcome.state == "failed":
            self.failed[run] = outcome.error
            logger.warning(f"{self._count()} FAILED  {run.title}: {outcome.error}{outcome.note}")
            return
        if outcome.state != "known":
            self.estimator.learn(self._next_step(run), outcome.seconds)
        self.done.add(run)
        left = f"   ({self.time_left()})" if self.open_runs() else ""
        logger.info(
            f"{self._count()} {outcome.state:7} {run.title}: {outcome.accuracy:.1f}% "
            f"in {duration(outcome.seconds)}{outcome.note}{left}"
        )

    def log_of(self, run: Run) -> Path:
        return self.jobs[run].folder.path / "log.txt"

    def _say_running(self) -> None:
        """Says what is running, `every` so many seconds."""
        now = time.monotonic()
        if not self.every or now - self.told < self.every:
            return
        self.told = now
        for run, began in self.running.items():
            since = duration(now - began)
            logger.info(f"{self._count()} running {run.title}, for {since}: {self.log_of(run)}")

    def _train_again(self, run: Run, why: str) -> None:
        """Puts an evaluation off until its training is done anew: once, if that is planned."""
        if run.source not in self.jobs or run in self.put_off:
            self.failed[run] = f"{why}: what it evaluates has to be trained again"
            logger.warning(f"{self._count()} FAILED  {run.title}: {self.failed[run]}")
            return
        self.put_off.add(run)
        lost = {run.source, *(other for other in self.jobs if other.source == run.source)}
        self.done -= lost
        self.to_test_again -= lost
        logger.info(f"{self._count()} again   {run.source.title}: {why}")

    def _count(self) -> str:
        width = len(str(len(self.jobs)))
        ended = len(self.jobs) - len(self.open_runs())
        return f"[{ended:{width}}/{len(self.jobs)}]"

    def summary(self, command: str) -> str:
        """Returns what failed, where its log lies, and how to do it again."""
        total = len(self.jobs)
        if not self.failed:
            return "The run is finished." if total == 1 else f"All {total:,} runs are finished."
        finished = total - len(self.failed)
        lines = [f"{finished} of {counted(total, 'run')} finished, {len(self.failed)} failed:"]
        for run, error in self.failed.items():
            folder = self.jobs[run].folder.path
            where = "" if error.startswith("not run") else f"\n    see {folder}/error.txt, log.txt"
            lines.append(f"  {run.title}: {error}{where}")
        lines.append(f"Do them again, and nothing else, with:\n  {command}")
        return "\n".join(lines)
