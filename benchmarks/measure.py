"""How benchmarks measure: times by turns, memory by high-water mark, operations by counting.

A work called "plain" is compared with one called "ours".
"""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from encoders.kernels.gemm import BACKENDS, default_backend

Work = Callable[[], Any]
TURN = 3.0  # seconds
PRODUCTS = ((2048, 2048, 2048), (768, 512, 2048), (256, 2048, 512))  # rows, width, out
READ = 2**27  # numbers of a tensor that no cache holds: 512 MiB


def largest_difference(works: dict[str, Work]) -> float | None:
    """Runs what there is once; returns the largest difference relative to the largest number."""
    differences = differences_of(works)
    return max(differences) if differences else None


def differences_of(works: dict[str, Work]) -> list[float]:
    """Returns the difference in each of the tensors; nothing if there is no plain path."""
    ours = [t.clone() for t in works["ours"]()]
    if "plain" not in works:
        return []
    pairs = zip(works["plain"](), ours)
    return [((a - b).abs().max() / a.abs().max()).item() for a, b in pairs]


def by_turns(
    works: dict[str, Work], device: torch.device, seconds: float, warm: str = ""
) -> dict[str, list]:
    """Times each work again and again, one after the other.

    In its turn a work is done once untimed, then timed again and again for TURN seconds, but ten
    times at most: another path leaves cold caches and returned memory behind, which a training,
    doing the same step again and again, never meets. The plain path, too, takes half as long again
    without it.

    Args:
        works: what to do, by name. Do each once before, or one-time costs are timed.
        device: waited for before and after.
        seconds: stop after this time, but not before three rounds (one if it takes 20 seconds).
        warm: the work that was done last; if it is the first one, it needs no untimed run.

    Returns:
        The median of each turn, in seconds, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    start = time.perf_counter()
    rounds, passed = 0, 0.0
    while rounds < (1 if passed > 20 else 3) or (rounds < 50 and passed < seconds):
        for name, work in works.items():
            if name != warm:
                work()
            turn = [_seconds(work, device)]
            while sum(turn) < TURN and len(turn) < 10:
                turn.append(_seconds(work, device))
            times[name].append(statistics.median(turn))
            warm = name
        rounds, passed = rounds + 1, time.perf_counter() - start
    return times


def _seconds(work: Work, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio_of(times: dict[str, list[float]]) -> float | None:
    """Median of plain / ours over neighbouring rounds: other programs slow both down."""
    if "plain" not in times:
        return None
    return statistics.median(a / b for a, b in zip(times["plain"], times["ours"]))


def added_memory(work: Work, device: torch.device) -> int | None:
    """Returns the bytes that a work adds at its peak to what was there before.

    On a CPU: the resident memory's high-water mark, which Linux can set back; None elsewhere. On a
    GPU: torch's own high-water mark. Do the work once before, or one-time costs are counted.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    status = Path("/proc/self/status")
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # free memory would hide what the work takes
        Path("/proc/self/clear_refs").write_text("5")  # sets the mark back
    except OSError:
        return None
    before = _status(status, "VmRSS")
    work()
    return _status(status, "VmHWM") - before


def _status(path: Path, key: str) -> int:
    return int(re.search(rf"{key}:\s+(\d+) kB", path.read_text()).group(1)) * 1024


def _count_linear(x_shape: torch.Size, weight_shape: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x_shape.numel() * weight_shape[0]


def count_flops(work: Work) -> int:
    """Returns the floating-point operations of all matrix products, two per multiply-add."""
    mapping = {}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        mapping[torch.ops.mkldnn._linear_pointwise] = _count_linear
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return counter.get_total_flops()


def memory_rate(device: torch.device) -> float:
    """Returns the bytes a second at which a tensor that no cache holds is read."""
    x = torch.ones(READ, device=device)
    return x.nbytes / min(_seconds(x.sum, device) for _ in range(10))


def matmul_peak(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Returns the best rate of large products, in flop/s, for each backend of frozen layers."""
    names = BACKENDS if default_backend(device, dtype) == "onednn" else ("torch",)
    peak = {}
    for name in names:
        for rows, width, out in PRODUCTS:
            x = torch.randn(rows, width, device=device, dtype=dtype)
            product = BACKENDS[name](torch.randn(out, width, device=device, dtype=dtype))
            best = min(_seconds(lambda: product(x), device) for _ in range(30))  # noqa: B023
            peak[name] = max(peak.get(name, 0.0), 2 * rows * width * out / best)
    return peak
