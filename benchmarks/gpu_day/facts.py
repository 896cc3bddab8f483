"""What the machine is, which kernels torch chooses on it, and the rates that estimates rest on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_day.part import Result, run_part
from benchmarks.measure import matmul_peak
from dassl.utils.device import nvidia_smi
from encoders.kernels.tree_attention import KERNELS

# Query and key shapes (batch, heads, slots, width of a head): ViT-B/16 at 32 images, and the tiles
# of 50 classes with CoCoOp, where a mask says which rows see each other.
ATTENTION = {"image": ((32, 12, 197, 64), 197, False), "text": ((16, 8, 16, 64), 24, True)}


def measure(device: torch.device) -> Iterator[Result]:
    yield card(device)
    yield rates(device)
    for name in ATTENTION:
        yield attention(name, device)


def card(device: torch.device) -> Result:
    """Versions, the card, and the switches that decide how it computes."""
    matmul = torch.backends.cuda.matmul
    found: Result = {
        "key": "card",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_products": matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "fp16_sums_in_fp16": matmul.allow_fp16_reduced_precision_reduction,
        "attention_of_prompts": ", ".join(kernel.name for kernel in KERNELS),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        p = torch.cuda.get_device_properties(device)
        found |= {"gpu": p.name, "memory_gb": p.total_memory / 1e9}
        found |= {"multiprocessors": p.multi_processor_count, "driver": driver()}
    return found


def driver() -> str:
    """Returns what nvidia-smi says of driver and card."""
    query = "--query-gpu=driver_version,clocks.sm,power.limit"
    return (nvidia_smi(query, "--format=csv") or "unknown").strip()


def seconds(work: Callable[[], Any], device: torch.device, times: int) -> float:
    """Returns the seconds that each of `times` calls takes when they follow each other."""
    for _ in range(3):
        work()
    _wait(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return (time.perf_counter() - start) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rates(device: torch.device) -> Result:
    """The terms that `benchmarks/on_paper.py` assumes: products, memory, transfers, launches."""
    on_gpu = device.type == "cuda"
    n = 8192 if on_gpu else 512
    found: Result = {"key": "rates"}
    for dtype in (torch.float16, torch.float32) if on_gpu else (torch.float32,):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        took = seconds(lambda: a @ b, device, 10)  # noqa: B023
        found[f"{str(dtype)[6:]}_flops_per_s"] = 2 * n**3 / took
        best = max(matmul_peak(device, dtype).values())
        found[f"{str(dtype)[6:]}_layer_flops_per_s"] = best
    x = torch.randn(2**28 if on_gpu else 2**22, device=device)
    y = torch.empty_like(x)
    found["copy_bytes_per_s"] = 2 * x.nbytes / seconds(lambda: y.copy_(x), device, 10)
    host = torch.randn(2**24 if on_gpu else 2**20, pin_memory=on_gpu)
    there = torch.empty_like(host, device=device)
    took = seconds(lambda: there.copy_(host, non_blocking=True), device, 10)
    found["host_to_device_bytes_per_s"] = host.nbytes / took
    small = torch.zeros(32, device=device)
    found["launch_seconds"] = seconds(lambda: small.add_(1), device, 2000 if on_gpu else 200)
    if on_gpu:
        found["replay_seconds"] = replay_seconds(small)
    return found


def replay_seconds(small: torch.Tensor, kernels: int = 1000) -> float:
    """Returns the seconds of each kernel in a graph of many small ones."""
    graph = torch.cuda.CUDAGraph()
    small.add_(1)
    with torch.cuda.graph(graph):
        for _ in range(kernels):
            small.add_(1)
    return seconds(graph.replay, small.device, 10) / kernels


def attention(name: str, device: torch.device) -> Result:
    """Which kernel torch chooses for attention of one shape, and what each of them takes."""
    (batch, heads, queries, size), keys, masked = ATTENTION[name]
    on_gpu = device.type == "cuda"
    batch, dtype = (batch, torch.float16) if on_gpu else (1, torch.float32)
    q = torch.randn(batch, heads, queries, size, device=device, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(batch, heads, keys, size, device=device, dtype=dtype) for _ in range(2))
    mask = torch.zeros(batch, 1, queries, keys, device=device, dtype=dtype) if masked else None
    found: Result = {"key": f"attention {name}"}
    found["chosen"] = SDPBackend(torch._fused_sdp_choice(q, k, v, mask)).name

    def both_passes() -> None:
        F.scaled_dot_product_attention(q, k, v, mask).sum().backward()

    for backend in list(SDPBackend.__members__.values()):
        if backend.name in ("ERROR", "OVERRIDEABLE"):
            continue
        try:
            with sdpa_kernel(backend):
                found[f"{backend.name}_seconds"] = seconds(both_passes, device, 10 if on_gpu else 2)
        except RuntimeError as error:
            found[f"{backend.name}_error"] = str(error).splitlines()[0][:80]
    return found


if __name__ == "__main__":
    run_part(measure)
