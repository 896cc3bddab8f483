"""Whole jobs, steps replayed as a CUDA graph or not; the homework: `homework.py`.

EuroSAT's and Caltech101's shapes, CoOp and CoCoOp (`benchmarks/whole_job.py`), each from nothing
stored. Of the others' epochs a few are run, and the seconds scaled to all: without graphs, the
whole would take ten minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.gpu_day.part import Result, accuracies, difference, learned, run_part
from benchmarks.whole_job import JOBS, Job, request_for, run, whole_ours
from benchmarks.whole_job_data import REAL, SMALL, write_data, write_weights

HOMEWORK = JOBS[0]
EPOCHS = {"eurosat CoOp": 10, "caltech101 CoCoOp": 2, "caltech101 CoOp": 4}  # of 100, 10, 50
RUNS = {"replayed": True, "plain": False}  # whether graphs are on


def measure(device: torch.device, jobs: tuple[Job, ...] = JOBS[1:]) -> Iterator[Result]:
    """Does the jobs; data are written beside the first ones, by other processes."""
    sizes = REAL if device.type == "cuda" else SMALL
    if device.type == "cpu":
        jobs = tuple(replace(j, epochs=2, shape=replace(j.shape, test=(20, 20))) for j in jobs[:1])
    shapes = dict.fromkeys(job.shape for job in jobs)
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(len(shapes), get_context("spawn")) as pool,
    ):
        folder = Path(name)
        written = {s: pool.submit(write_data, folder / s.folder, s, s.test) for s in shapes}
        write_weights(folder / "weights.pt", sizes)
        for job in jobs:
            written[job.shape].result()
            yield compared(job, folder, sizes)


def compared(job: Job, folder: Path, sizes: tuple[int, ...]) -> Result:
    """Runs a job with and without graphs, and compares what comes out."""
    epochs = min(job.epochs, EPOCHS.get(job.name, job.epochs))
    result: Result = {"key": job.name, "epochs": epochs, "test_images": sum(job.shape.test)}
    request = request_for(job, sizes, torch.get_num_threads(), folder, epochs)
    outputs = {name: folder / f"{job.name}-{name}" for name in RUNS}
    for name, graphs in RUNS.items():
        request |= {"method": job.method, "path": "ours", "output": str(outputs[name])}
        request |= {"store": str(outputs[name] / "store"), "options": {"MODEL.CUDA_GRAPH": graphs}}
        lap = whole_ours(job, run(request), job.shape.test)
        result |= {f"{name}_{part}_seconds": seconds for part, seconds in lap.items()}
        found = [a for part in ("base", "new") for a in accuracies(outputs[name] / part)]
        result[f"{name}_accuracies"] = found
        print(f"{job.name}, {name}: {lap}", flush=True)
    apart = zip(result["replayed_accuracies"], result["plain_accuracies"], strict=True)
    result["replayed_points"] = max(abs(a - b) for a, b in apart)
    result["replayed_difference"] = difference(
        *(learned(outputs[name] / "base") for name in ("replayed", "plain"))
    )
    result["gain"] = result["plain_text_seconds"] / max(1e-9, result["replayed_text_seconds"])
    result["whole_gain"] = result["plain_total_seconds"] / result["replayed_total_seconds"]
    result["whole_seconds"] = min(result[f"{name}_total_seconds"] for name in RUNS)
    return result


if __name__ == "__main__":
    run_part(measure)
