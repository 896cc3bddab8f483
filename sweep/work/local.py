"""The executor for one machine: worker processes that live as long as the sweep."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import IO

from sweep.plan.run import ROOT
from sweep.work.execute import Job, Outcome
from sweep.work.worker import encode

_CONTEXT_LOST = "CUDA error"  # after most of these, a process can never use its GPU again


class _Worker:
    """One process and the job it has.

    Args:
        threads: of torch, in the process.
        gpu: the GPU that it sees alone; "": none; None: it sees whatever is visible.
        answers: gets (worker, line) for each of its answers, and (worker, "") when it is gone.
    """

    def __init__(
        self, threads: int, gpu: str | None, answers: queue.Queue[tuple[_Worker, str]]
    ) -> None:
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
            # Ctrl-C is ours to handle, so it must not reach the worker: POSIX, then Windows.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        threading.Thread(target=self._read, args=(answers,), daemon=True).start()

    def _read(self, answers: queue.Queue[tuple[_Worker, str]]) -> None:
        with self.process.stdout as lines:
            for line in lines:
                answers.put((self, line))
        answers.put((self, ""))

    def start(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(OSError):  # it died: the end of its output tells
            self.process.stdin.write(encode(job))
            self.process.stdin.flush()

    def death(self) -> str:
        """Returns how it died: its exit code and the last line it wrote."""
        code = self.process.wait()
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - 2000))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        if -code == getattr(signal, "SIGKILL", None):
            how += ", as systems do when memory runs out: try fewer --jobs"
        return f"its process died ({how}){': ' + lines[-1] if lines else ''}"

    def stop(self) -> None:
        """Ends the process at once; what it was doing can be resumed."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.errors):
            with contextlib.suppress(OSError):
                stream.close()


class LocalExecutor:
    """Runs up to `jobs` jobs at once.

    Args:
        jobs: number of processes.
        threads: of torch, in each.
        gpus: to deal the processes to in turn, see `Places`; empty: whatever is visible.
    """

    def __init__(self, jobs: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self.threads = threads
        self.gpus = [gpus[i % len(gpus)] if gpus else None for i in range(jobs)]
        self.workers: list[_Worker | None] = [None] * jobs
        self.answers: queue.Queue[tuple[_Worker, str]] = queue.Queue()

    @property
    def free(self) -> int:
        return sum(worker is None or worker.job is None for worker in self.workers)

    def submit(self, job: Job) -> None:
        """Starts a job; there must be a free place."""
        place = next(i for i, w in enumerate(self.workers) if w is None or w.job is None)
        worker = self.workers[place] or _Worker(self.threads, self.gpus[place], self.answers)
        self.workers[place] = worker
        worker.start(job)

    def wait(self, timeout: float | None = None) -> list[tuple[Job, Outcome]]:
        """Waits until a job ends, or for `timeout` seconds; returns what ended."""
        try:
            worker, line = self.answers.get(timeout=timeout)
        except queue.Empty:
            return []
        if worker not in self.workers:
            return []  # the last sign of one that was stopped
        job, worker.job = worker.job, None
        if line.endswith("\n"):
            outcome = Outcome(**json.loads(line))
            if outcome.state == "failed" and _CONTEXT_LOST in outcome.error:
                self._remove(worker)  # it would fail all that follows, and fast
        else:
            outcome = Outcome("failed", error=worker.death())
            self._remove(worker)
            if job is not None:
                job.folder.write_error(outcome.error)  # it could not
        return [(job, outcome)] if job is not None else []

    def close(self) -> None:
        for worker in self.workers:
            if worker is not None:
                self._remove(worker)

    def _remove(self, worker: _Worker) -> None:
        worker.stop()
        self.workers[self.workers.index(worker)] = None
