"""Half precision against float64: is ours as near to the truth as the public fp16 path?

The weights are rounded to half precision first, so both paths and the float64 one mean the same
numbers. The public path (`benchmarks/plain.py`) keeps the learned parameters in float32 here, as
ours does: the public code's own rounding of them would only widen its error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu_day.part import Result, run_part
from benchmarks.text_encoding import Bench, Case, class_names
from benchmarks.whole_job_data import REAL, SMALL

CASES = (
    Case("step", "CoCoOp", 5, 4),
    Case("step", "CoCoOp", 100, 1),
    Case("step", "CoOp", 50, 32),
    Case("step", "CoOp", 500, 32),
)
DRAWS = 12  # of images: a single one says little


def measure(device: torch.device) -> Iterator[Result]:
    on_gpu = device.type == "cuda"
    half = Bench(device, "fp16", class_names(), REAL if on_gpu else SMALL)
    exact = copy.copy(half)
    exact.clip = copy.deepcopy(half.clip).double()
    for module in exact.clip.modules():
        if isinstance(module, nn.LayerNorm):
            module.__class__ = nn.LayerNorm  # clip's own computes in float32, whatever it is given
    for case in CASES if on_gpu else CASES[:1]:
        yield errors(half, exact, case, DRAWS if on_gpu else 2)


def errors(half: Bench, exact: Bench, case: Case, draws: int) -> Result:
    """Returns both paths' errors, root mean squares relative to the truth's."""
    squares: dict[tuple[str, str], list[float]] = {}
    truth_model, half_model = exact.model(case).double(), half.model(case)
    for seed in range(draws):
        image = half.images(case, seed)
        truth = numbers(exact, truth_model, case, "plain", image.double())
        for path in ("plain", "ours"):
            found = numbers(half, half_model, case, path, image)
            for what, value in truth.items():
                off = (found[what].double() - value).square().mean() / value.square().mean()
                squares.setdefault((what, path), []).append(off.item())
    result: Result = {"key": f"half {case.key}"}
    for what in ("logits", "gradient"):
        ours, plain = (math.sqrt(sum(squares[what, p]) / draws) for p in ("ours", "plain"))
        result |= {f"{what}_ours": ours, f"{what}_plain": plain, f"{what}_ratio": ours / plain}
    return result


def numbers(bench: Bench, model: nn.Module, case: Case, path: str, image: Tensor) -> dict:
    """Returns the logits and the gradient of everything learned, end to end."""
    label = torch.arange(case.batch, device=image.device) % case.n_cls
    logits = bench.forwards(case, model)[path](image)
    grads = torch.autograd.grad(
        F.cross_entropy(logits, label), list(model.prompt_learner.parameters())
    )
    return {"logits": logits.detach(), "gradient": torch.cat([g.flatten() for g in grads])}


if __name__ == "__main__":
    run_part(measure)
