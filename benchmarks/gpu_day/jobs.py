"""Whole jobs at full length, with steps replayed as a CUDA graph and without.

EuroSAT's and Caltech101's shapes, CoOp and CoCoOp (`benchmarks/whole_job.py`), each from nothing
stored. The homework runs twice without graphs: how far two plain runs are apart (sums of some
kernels have no fixed order) is what graphs are measured by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu_day.part import Result, accuracies, difference, learned, run_part
from benchmarks.whole_job import JOBS, Job, request_for, run, whole_ours
from benchmarks.whole_job_data import REAL, SMALL, write_data, write_weights

RUNS = {"plain": False, "replayed": True}  # whether graphs are on
AGAIN = {"plain": False, "again": False, "replayed": True}


def measure(device: torch.device) -> Iterator[Result]:
    on_gpu = device.type == "cuda"
    sizes = REAL if on_gpu else SMALL
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder) / "weights.pt", sizes)
        for number, job in enumerate(JOBS if on_gpu else JOBS[:1]):
            runs = RUNS if number else AGAIN
            if not on_gpu:
                job = replace(job, epochs=2, shape=replace(job.shape, test=(20, 20)))
            if not (Path(folder) / job.shape.folder).exists():
                write_data(Path(folder) / job.shape.folder, job.shape, job.shape.test)
            yield compared(job, runs, Path(folder), sizes)


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
