"""What the GPU does in a training step: kernels, gaps between them, the ten that take longest.

Steps of `benchmarks/text_encoding.py`, replayed and plain; and epochs of the homework's training as
they are, with reading and encoding of views. A gap is time within the measured span in which no
kernel runs. On a CPU, torch's innermost operations stand for kernels.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import train
from benchmarks.gpu_day.part import Result, run_part
from benchmarks.measure import Work
from benchmarks.text_encoding import Bench, Case, class_names
from benchmarks.whole_job import JOBS, request_for
from benchmarks.whole_job_data import REAL, SMALL, write_data, write_weights
from benchmarks.whole_job_runs import arguments
from dassl.engine import TrainerX
from dassl.utils.logger import quiet

CASES = (
    Case("step", "CoCoOp", 5, 4),
    Case("step", "CoCoOp", 500, 1),
    Case("step", "CoCoOp", 1000, 1),
    Case("step", "CoOp", 50, 32),
)
STEPS = 20
HOMEWORK = JOBS[0]
Span = tuple[float, float]  # start and end, microseconds


def measure(device: torch.device) -> Iterator[Result]:
    on_gpu = device.type == "cuda"
    bench = Bench(device, "fp16" if on_gpu else "fp32", class_names(), REAL if on_gpu else SMALL)
    for case in CASES if on_gpu else CASES[:1]:
        step = bench.works(case)["ours"]
        yield profiled(f"replayed {case.key}", step, device, STEPS)
        plain = getattr(step, "counted", step)  # what is recorded: the plain step
        yield profiled(f"plain {case.key}", plain, device, STEPS)
    yield epochs(device)


def profiled(key: str, step: Work, device: torch.device, steps: int) -> Result:
    """Profiles some steps that follow each other."""
    step()
    _wait(device)
    with profiler(device) as prof:
        for _ in range(steps):
            step()
        _wait(device)
    return {"key": key, **summary(spans(prof, device), steps)}


def profiler(device: torch.device) -> profile:
    """Watches the device alone: watching the host, too, would slow it down and widen the gaps."""
    on_gpu = device.type == "cuda"
    return profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spans(prof: profile, device: torch.device) -> list[tuple[str, Span]]:
    """Returns the kernels (and copies) that a profile saw, and when they ran."""
    wanted = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    return [
        (event.name, (event.time_range.start, event.time_range.end))
        for event in prof.events()
        if event.device_type == wanted
        and not (wanted == DeviceType.CPU and event.cpu_children)
        and not getattr(event, "is_user_annotation", False)
    ]


def summary(kernels: list[tuple[str, Span]], steps: int) -> Result:
    """Returns kernels a step, milliseconds, the share of gaps, and the ten longest kernels."""
    by_name: dict[str, float] = defaultdict(float)
    for name, (start, end) in kernels:
        by_name[name] += end - start
    longest = sorted(by_name.items(), key=lambda item: -item[1])[:10]
    times = [span for _, span in kernels]
    whole = max(end for _, end in times) - min(start for start, _ in times) if times else 0.0
    busy = covered(times)
    return {
        "kernels": len(kernels) / steps,
        "milliseconds": whole / steps / 1e3,
        "busy_milliseconds": busy / steps / 1e3,
        "gaps": 1 - busy / whole if whole else 1.0,
        "top_ten": [{"kernel": n[:120], "share": t / sum(by_name.values())} for n, t in longest],
    }


def covered(times: Iterable[Span]) -> float:
    """Returns the length of the union of time spans."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(times):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def epochs(device: torch.device) -> Result:
    """Profiles the homework's training, from its third epoch on."""
    on_gpu = device.type == "cuda"
    sizes, n_epochs = (REAL, 7) if on_gpu else (SMALL, 4)
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        write_weights(folder / "weights.pt", sizes)
        write_data(folder / HOMEWORK.shape.folder, HOMEWORK.shape, (8, 8))
        request = request_for(HOMEWORK, sizes, torch.get_num_threads(), folder, n_epochs)
        request |= {"method": HOMEWORK.method, "store": str(folder / "store"), "output": name}
        request["options"] = {"TEST.NO_TEST": True, "USE_CUDA": on_gpu}
        with profiled_from(3, device) as seen:
            train.main(arguments(request, "base", subsample_classes="base"))
    return {"key": "epochs of the homework", **summary(seen(), n_epochs - 2)}


class profiled_from:  # noqa: N801 - a context manager
    """Profiles a training from an epoch (counted from 1) to its end; gives what reads it."""

    def __init__(self, first: int, device: torch.device) -> None:
        self.first, self.device, self.epochs = first, device, 0
        self.prof = profiler(device)

    def __enter__(self) -> Callable[[], list[tuple[str, Span]]]:
        self.original = original = TrainerX.run_epoch

        def run_epoch(trainer: Any) -> Any:
            self.epochs += 1
            if self.epochs == self.first:
                self.prof.start()
            return original(trainer)

        TrainerX.run_epoch = run_epoch
        return lambda: spans(self.prof, self.device)

    def __exit__(self, *_: object) -> None:
        TrainerX.run_epoch = self.original
        _wait(self.device)
        self.prof.stop()


if __name__ == "__main__":
    run_part(measure)
