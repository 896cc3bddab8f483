"""Whole jobs at full length, steps replayed as a CUDA graph or not; the homework: `homework.py`.

EuroSAT's and Caltech101's shapes, CoOp and CoCoOp (`benchmarks/whole_job.py`), each from nothing
stored. The homework runs twice without graphs: two plain runs are apart as well, as the sums of
some kernels have no fixed order.
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
RUNS = {"plain": False, "replayed": True}  # whether graphs are on
AGAIN = {"plain": False, "again": False, "replayed": True}


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
            yield compared(job, AGAIN if job.name == HOMEWORK.name else RUNS, folder, sizes)


def compared(job: Job, runs: dict[str, bool], folder: Path, sizes: tuple[int, ...]) -> Result:
    """Runs a job as often as `runs` says, and compares each run's numbers with the first one's."""
    result: Result = {"key": job.name, "epochs": job.epochs, "test_images": sum(job.shape.test)}
    request = request_for(job, sizes, torch.get_num_threads(), folder, job.epochs)
    outputs = {name: folder / f"{job.name}-{name}" for name in runs}
    for name, graphs in runs.items():
        request |= {"method": job.method, "path": "ours", "output": str(outputs[name])}
        request |= {"store": str(outputs[name] / "store"), "options": {"MODEL.CUDA_GRAPH": graphs}}
        lap = whole_ours(job, run(request), job.shape.test)
        result |= {f"{name}_{part}_seconds": seconds for part, seconds in lap.items()}
        found = [a for part in ("base", "new") for a in accuracies(outputs[name] / part)]
        result[f"{name}_accuracies"] = found
    plain = outputs["plain"] / "base"
    for name in list(runs)[1:]:
        apart = zip(result[f"{name}_accuracies"], result["plain_accuracies"], strict=True)
        result[f"{name}_points"] = max(abs(a - b) for a, b in apart)
        result[f"{name}_difference"] = difference(learned(outputs[name] / "base"), learned(plain))
    result["gain"] = result["plain_text_seconds"] / max(1e-9, result["replayed_text_seconds"])
    result["whole_gain"] = result["plain_total_seconds"] / result["replayed_total_seconds"]
    result["whole_seconds"] = min(result[f"{name}_total_seconds"] for name in RUNS)
    return result


if __name__ == "__main__":
    run_part(measure)
