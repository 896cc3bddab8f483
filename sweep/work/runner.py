"""Carries out a plan: keeps the executor busy, prints a line per run, sums up at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sweep.plan.run import Run, evaluation_of
from sweep.work.estimate import Estimator, duration
from sweep.work.execute import Job, Outcome
from sweep.work.folder import has_error_analysis, record_of, seconds_of

BUSY_RETRY = 2.0  # seconds until a run that another process works on is tried again


class Executor(Protocol):
    """Runs jobs somewhere: `local.py`, `ray_pool.py`."""

    @property
    def free(self) -> int: ...

    def submit(self, job: Job) -> None: ...

    def wait(self, timeout: float | None = None) -> list[tuple[Job, Outcome]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Options:
    """How jobs are carried out; see `Job`."""

    output: Path
    root: str
    jobs: int = 1
    keep_epochs: bool = False
    extra: tuple[str, ...] = ()
    error_analysis: bool = False

    def job(self, run: Run) -> Job:
        return Job(run, self.output, self.root, self.keep_epochs, self.extra, self.error_analysis)


@dataclass
class Sweep:
    """The state of a plan while it is carried out.

    Attributes:
        runs: every training before its evaluations.
        done: finished, now or earlier.
        to_test_again: finished earlier, but the error analysis that is asked for is lacking.
        failed: run → error; evaluations of a training that failed included.
    """

    runs: Sequence[Run]
    options: Options
    estimator: Estimator = field(default_factory=Estimator)
    done: set[Run] = field(default_factory=set)
    to_test_again: set[Run] = field(default_factory=set)
    failed: dict[Run, str] = field(default_factory=dict)
    running: set[Run] = field(default_factory=set)
    busy: dict[Run, float] = field(default_factory=dict)  # → when to try again

    def look(self) -> None:
        """Finds the runs that records say are finished."""
        sources = [run.source for run in self.runs if run.source is not None]
        for run in dict.fromkeys([*sources, *self.runs]):
            if record_of(run, self.options.output) is not None:
                lacking = self.options.error_analysis and not has_error_analysis(
                    run, self.options.output
                )
                (self.to_test_again if lacking else self.done).add(run)
                seconds = seconds_of(run, self.options.output)
                if seconds:
                    self.estimator.learn(run, seconds)

    def open_runs(self) -> list[Run]:
        return [run for run in self.runs if run not in self.done and run not in self.failed]

    def time_left(self) -> float:
        left = [evaluation_of(r) if r in self.to_test_again else r for r in self.open_runs()]
        return self.estimator.total(left, self.options.jobs)

    def carry_out(self, executor: Executor) -> None:
        """Does all runs that are not done, with their training first."""
        try:
            while True:
                self._submit(executor)
                if self.running:
                    for job, outcome in executor.wait(BUSY_RETRY if self.busy else None):
                        self._take(job.run, outcome)
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
                self.running.add(run)
                executor.submit(self.options.job(run))
            elif source in self.failed or source not in self.runs:
                why = "its training failed" if source in self.failed else "nothing trained it yet"
                self._take(run, Outcome("failed", error=f"not run: {why}"))

    def _take(self, run: Run, outcome: Outcome) -> None:
        self.running.discard(run)
        if outcome.state == "busy":
            if run not in self.busy:
                print(f"{self._count()} waiting {run.title}: {outcome.error}", flush=True)
            self.busy[run] = time.monotonic() + BUSY_RETRY
            return
        self.busy.pop(run, None)
        if outcome.state == "failed":
            self.failed[run] = outcome.error
            print(f"{self._count()} FAILED  {run.title}: {outcome.error}", flush=True)
            return
        self.done.add(run)
        if outcome.state == "done":
            self.estimator.learn(run, outcome.seconds)
        took, left = duration(outcome.seconds), duration(self.time_left())
        print(
            f"{self._count()} {outcome.state:7} {run.title}: {outcome.accuracy:.1f}% "
            f"in {took}{outcome.note}   (about {left} left)",
            flush=True,
        )

    def _count(self) -> str:
        width = len(str(len(self.runs)))
        ended = len(self.runs) - len(self.open_runs())
        return f"[{ended:{width}}/{len(self.runs)}]"

    def summary(self, command: str) -> str:
        """Returns what failed, where its log lies, and how to do it again."""
        total = len(self.runs)
        if not self.failed:
            return f"All {total} runs are finished."
        lines = [f"{total - len(self.failed)} of {total} runs are finished, the others failed:"]
        for run, error in self.failed.items():
            folder = run.folder(self.options.output)
            where = "" if error.startswith("not run") else f"\n    see {folder}/error.txt, log.txt"
            lines.append(f"  {run.title}: {error}{where}")
        lines.append(f"Do them again, and nothing else, with:\n  {command}")
        return "\n".join(lines)
