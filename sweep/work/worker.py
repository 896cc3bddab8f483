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
    answers = _answers()
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, jobs), daemon=True).start()
    while True:
        answers.write(json.dumps(asdict(execute(decode(jobs.get())))) + "\n")
        answers.flush()


def _answers() -> TextIO:
    """Returns standard output, which from now on is no place for what runs say: log.txt has it."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    sys.stdout.reconfigure(encoding="utf-8")  # nothing that is said can fail to be encoded
    return answers


def _read(source: TextIO, jobs: queue.Queue[str]) -> None:
    for line in source:
        jobs.put(line)
    os._exit(0)  # whoever wanted the results is gone


if __name__ == "__main__":
    main(int(sys.argv[1]))
