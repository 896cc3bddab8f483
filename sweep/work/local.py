"""The executor for one machine: worker processes that live as long as the sweep."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

from sweep.plan.run import ROOT
from sweep.work.execute import Job, Outcome
from sweep.work.worker import encode


class _Worker:
    """One process and the job it has."""

    def __init__(self, threads: int, gpu: str | None) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        self.job: Job | None = None
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the worker
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sweep.work.worker", str(threads)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to handle
        )

    def start(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # it died: the end of its output tells
            self.process.stdin.write(encode(job))
            self.process.stdin.flush()

    def death(self) -> str:
        """Returns how it died: its exit code and the last lines it wrote."""
        code = self.process.wait()
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - 2000))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process died ({how}){': ' + lines[-1] if lines else ''}"

    def stop(self) -> None:
        """Ends the process at once; what it was doing can be resumed."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):
                stream.close()


class LocalExecutor:
    """Runs up to `jobs` jobs at once.

    Args:
        jobs: number of processes.
        threads: of torch, in each.
        gpus: devices to deal the processes to in turn; empty: whatever is visible.
    """

    def __init__(self, jobs: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self.threads = threads
        self.gpus = [gpus[i % len(gpus)] if gpus else None for i in range(jobs)]
        self.workers: list[_Worker | None] = [None] * jobs
        self.selector = selectors.DefaultSelector()

    @property
    def free(self) -> int:
        return sum(worker is None or worker.job is None for worker in self.workers)

    def submit(self, job: Job) -> None:
        """Starts a job; there must be a free place."""
        place = next(i for i, w in enumerate(self.workers) if w is None or w.job is None)
        if self.workers[place] is None:
            worker = _Worker(self.threads, self.gpus[place])
            self.selector.register(worker.process.stdout, selectors.EVENT_READ, place)
            self.workers[place] = worker
        self.workers[place].start(job)

    def wait(self, timeout: float | None = None) -> list[tuple[Job, Outcome]]:
        """Waits until a job ends, or for `timeout` seconds; returns what ended."""
        ended = []
        for key, _ in self.selector.select(timeout):
            worker = self.workers[key.data]
            line = worker.process.stdout.readline()
            answer = json.loads(line) if line.endswith("\n") else None
            outcome = Outcome(**answer) if answer else Outcome("failed", error=worker.death())
            if worker.job is not None:
                ended.append((worker.job, outcome))
            worker.job = None
            if answer is None:
                self._remove(key.data)
        return ended

    def close(self) -> None:
        for place, worker in enumerate(self.workers):
            if worker is not None:
                self._remove(place)

    def _remove(self, place: int) -> None:
        worker = self.workers[place]
        self.selector.unregister(worker.process.stdout)
        worker.stop()
        self.workers[place] = None
