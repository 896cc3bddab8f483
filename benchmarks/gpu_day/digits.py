"""A sweep on the embedded digits with four workers on one card: twice, and by the card's UUID.

All must end, with the same accuracies: workers share a card, a name of a card is any of those that
the driver takes, and a number depends on neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu_day.part import ROOT, Result, run_part
from dassl.utils.results import read_records
from sweep.work.gpus import first_gpu

WORKERS = 4


def measure(device: torch.device) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        first: dict[str, float] = {}
        for name, (visible, flags) in sweeps(device).items():
            result, found = sweep(Path(folder), name, visible, flags)
            first = first or found
            apart = [abs(first[run] - value) for run, value in found.items() if run in first]
            result["points_apart"] = max(apart, default=float("inf"))
            yield result


def sweeps(device: torch.device) -> dict[str, tuple[str | None, str]]:
    """Returns what CUDA_VISIBLE_DEVICES is in each sweep (None: as it is), and its flags."""
    few = "--trainers CoOp --seeds 1"
    if device.type == "cpu":
        flags = f"{few} --opts OPTIM.MAX_EPOCH 2"
        return {"sweep first": ("", flags), "sweep again": ("", flags)}
    uuid = first_gpu().id
    return {
        "sweep first": (None, "--trainers all"),
        "sweep again": (None, "--trainers all"),
        "sweep by --devices UUID": (None, f"--devices {uuid} {few}"),
        "sweep with UUID visible": (uuid, few),
    }


def sweep(
    folder: Path, name: str, visible: str | None, flags: str
) -> tuple[Result, dict[str, float]]:
    """Runs a sweep into a folder of its own; returns how it went, and each run's accuracy."""
    output = folder / name.replace(" ", "-")
    command = [sys.executable, "-m", "sweep", "run", "base2new", "--datasets", "digits"]
    command += ["--root", str(folder / "data"), "--output", str(output), "--jobs", str(WORKERS)]
    command += flags.split()
    # A cache of its own: the second sweep must not find the first one's features.
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / f"cache-{output.name}")}
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    result: Result = {"key": name, "visible": visible, "flags": flags}
    result["seconds"] = time.perf_counter() - start
    found = {
        path.parent.relative_to(output).as_posix(): record["metrics"]["accuracy"]
        for path in sorted(output.rglob("results.jsonl"))
        for record in read_records(path)
    }
    result |= {"exit_code": done.returncode, "runs": len(found), "accuracies": found}
    if done.returncode:
        result["output"] = (done.stdout + done.stderr)[-2000:]
    return result, found


if __name__ == "__main__":
    run_part(measure)
