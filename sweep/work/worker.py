"""A worker process: reads jobs from standard input, answers on standard output, one JSON a line.

It does one run after the other in one process, so Python, torch and CLIP's code are loaded once. If
the process that started it dies, its input ends, and it stops at once: no orphan goes on working.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import torch

from sweep.plan.run import Run
from sweep.work.execute import Job, execute


def encode(job: Job) -> str:
    """Returns a job as one line."""
    content = {**asdict(job), "output": str(job.output), "run": job.run.as_dict()}
    return json.dumps(content) + "\n"


def decode(line: str) -> Job:
    """The inverse of `encode`."""
    content = json.loads(line)
    content["run"] = Run.from_dict(content["run"])
    content["output"], content["extra"] = Path(content["output"]), tuple(content["extra"])
    return Job(**content)


def main(threads: int) -> None:
    """Works until the input ends.

    Args:
        threads: of torch, in this process.
    """
    torch.set_num_threads(threads)
    lines, answers = _take_streams()
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines, jobs), daemon=True).start()
    while True:
        answers.write(json.dumps(asdict(execute(decode(jobs.get())))) + "\n")
        answers.flush()


def _take_streams() -> tuple[TextIO, TextIO]:
    """Returns standard input and output for jobs and answers; runs get the null device instead.

    What a run says is no answer: its log has it. And a process that a run forks closes its
    `sys.stdin`, which would wait forever for a thread of ours that reads from it.
    """
    lines = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, sys.stdin.fileno())
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    sys.stdout.reconfigure(encoding="utf-8")  # nothing that is said can fail to be encoded
    return lines, answers


def _read(source: TextIO, jobs: queue.Queue[str]) -> None:
    for line in source:
        jobs.put(line)
    os._exit(0)  # whoever wanted the results is gone


if __name__ == "__main__":
    main(int(sys.argv[1]))
