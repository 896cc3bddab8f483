"""CoOp and CoCoOp beside the papers' formulas as they stand, in one process, by turns.

    python benchmarks/text_encoding.py --json benchmarks/results/text_encoding_cpu.json
    python benchmarks/text_encoding.py --check      # the cases that bars need, then the bars

The plain path is `benchmarks/plain.py`: 77 positions, CLIP's own modules, CoCoOp image by image.
Weights are random, of the size of ViT-B/16. 5 classes are EuroSAT's base classes, 50 and 100 are
Caltech101's, more are ImageNet's. Before anything is timed, both paths' numbers are compared.

Parts: "text" is the text features' forward and backward pass, "image" the image features, "step" a
training step (image, text, loss, backward, optimizer), "test" a batch of an evaluation.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clip.model import convert_weights

import trainers
from benchmarks import plain
from benchmarks.bars import BARS, failures
from benchmarks.machine import add_result, describe_run
from benchmarks.measure import (
    Work,
    added_memory,
    by_turns,
    count_flops,
    differences_of,
    matmul_peak,
    memory_rate,
    ratio_of,
)
from benchmarks.whole_job_data import REAL, SMALL
from dassl.config import get_cfg_default
from dassl.engine.step_graph import CHECKS, Passes, StepGraph
from dassl.utils.device import multiply_in_full
from dassl.utils.logger import quiet
from encoders.kernels.gemm import default_backend
from encoders.load import freeze
from encoders.openai import CLIP
from encoders.text import free_bytes
from trainers import cocoop, coop

N_CTX = {"CoOp": 16, "CoCoOp": 4}  # of the papers
NAMES = (("eurosat", 5), ("caltech101", 100), ("imagenet", 1000))  # up to how many classes
# The plain path keeps this much a prompt in a training step at this size (13.7 GB for 500 prompts).
PLAIN_BYTES_PER_PROMPT = 28 * 2**20
PLAIN_PROMPTS = 200  # with more, the plain path takes minutes: done only where a bar needs it


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured; `key` names it in results and bars."""

    part: str  # text, image, step, test
    method: str  # CoOp, CoCoOp
    n_cls: int
    batch: int = 1
    position: str = "end"
    csc: bool = False
    n_ctx: int | None = None  # None: the paper's
    dataset: str = ""  # whose class names; empty: the first of NAMES that has enough

    @property
    def key(self) -> str:
        words = [self.part, self.method, str(self.n_cls), f"b{self.batch}"]
        words += [self.position] if self.position != "end" else []
        words += ["csc"] if self.csc else []
        return " ".join(words)

    @property
    def prompts(self) -> int:
        return self.n_cls * (self.batch if self.method == "CoCoOp" else 1)


SIZES = (5, 50, 100, 500, 1000)
CASES = (
    *(Case("text", "CoOp", n) for n in SIZES),
    *(Case("text", "CoCoOp", n, b) for n in SIZES for b in (1, 4, 32)),
    Case("text", "CoOp", 50, position="middle", n_ctx=4),
    Case("text", "CoOp", 50, position="front", n_ctx=4),
    Case("text", "CoOp", 50, csc=True, n_ctx=4),
    *(Case("image", "CoOp", 5, b) for b in (1, 4, 32)),
    *(Case("step", m, n, b) for m in ("CoOp", "CoCoOp") for n in SIZES for b in (1, 4, 32)),
    *(Case("test", m, n, 10) for m in ("CoOp", "CoCoOp") for n in SIZES),
)


class Bench:
    """A CLIP with random weights, and both paths' works on it.

    Args:
        device: where everything is.
        precision: fp32 or fp16.
        names: class names by dataset.
        sizes: of the CLIP, ViT-B/16's unless given.
    """

    def __init__(
        self,
        device: torch.device,
        precision: str,
        names: dict[str, list[str]],
        sizes: tuple[int, ...] = REAL,
    ) -> None:
        torch.manual_seed(0)
        self.device, self.precision, self.names = device, precision, names
        self.embed, self.pixels = sizes[:2]
        clip_model = CLIP(*sizes)
        freeze(clip_model)
        if precision == "fp16":
            convert_weights(clip_model)  # all but norms and embeddings
        self.clip = clip_model.to(device).eval()

    def model(self, case: Case) -> nn.Module:
        cfg = get_cfg_default()
        trainers.extend_cfg(cfg)
        cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = case.position
        cfg.TRAINER.COOP.CSC = case.csc
        n_ctx = case.n_ctx or N_CTX[case.method]
        cfg.TRAINER.COOP.N_CTX = cfg.TRAINER.COCOOP.N_CTX = n_ctx
        module = {"CoOp": coop, "CoCoOp": cocoop}[case.method]
        torch.manual_seed(1)
        data_set = case.dataset or next(name for name, most in NAMES if case.n_cls <= most)
        with quiet():
            model = module.CustomCLIP(cfg, self.names[data_set][: case.n_cls], self.clip)
        return model.to(self.device)

    def works(self, case: Case) -> dict[str, Work]:
        """Returns the case done by the plain path and by ours; each returns tensors to compare."""
        model = self.model(case)
        return getattr(self, f"_{case.part}")(case, model, self.images(case))

    def weight_bytes(self, case: Case) -> int:
        """Returns the bytes of frozen weights that a case reads at least, each pass once."""
        text, image = (
            sum(p.nbytes for p in tower.parameters() if p.dim() > 1)
            for tower in (self.clip.transformer, self.clip.visual)
        )
        passes = {"text": (2, 0), "image": (0, 1), "step": (2, 1)}  # forward, backward
        n_text, n_image = passes.get(case.part, (int(case.method == "CoCoOp"), 1))
        return n_text * text + n_image * image

    def images(self, case: Case, seed: int = 2) -> Tensor:
        torch.manual_seed(seed)
        return torch.randn(case.batch, 3, self.pixels, self.pixels, device=self.device)

    def _text(self, case: Case, model: nn.Module, image: Tensor) -> dict[str, Work]:
        features = F.normalize(torch.randn(case.batch, self.embed, device=self.device), dim=-1)

        def plain_features() -> Tensor:
            if case.method == "CoOp":
                return plain.coop_features(model, self.clip, case.position)
            return plain.cocoop_features(model, self.clip, features)

        def our_features() -> Tensor:
            return model.text_features(*([] if case.method == "CoOp" else [features]))

        weights = torch.randn(our_features().shape, device=self.device)
        learned = list(model.prompt_learner.parameters())

        def both_passes(encode: Work) -> Work:
            def work() -> list[Tensor]:
                out = encode()
                return [out.detach(), *torch.autograd.grad((out * weights).sum(), learned)]

            return work

        return {"plain": both_passes(plain_features), "ours": both_passes(our_features)}

    def _image(self, case: Case, model: nn.Module, image: Tensor) -> dict[str, Work]:
        def plain_features() -> list[Tensor]:
            return [F.normalize(self.clip.encode_image(image), dim=-1)]

        return {"plain": plain_features, "ours": lambda: [model.encode_image(image)]}

    def forwards(self, case: Case, model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
        path = plain.coop_logits if case.method == "CoOp" else plain.cocoop_logits
        return {"plain": lambda image: path(model, self.clip, image), "ours": model}

    def _step(self, case: Case, model: nn.Module, image: Tensor) -> dict[str, Work]:
        label = torch.arange(case.batch, device=self.device) % case.n_cls
        # A rate of zero: each step costs what it costs, and both paths stay comparable.
        optim = torch.optim.SGD(model.prompt_learner.parameters(), lr=0.0, momentum=0.9)

        def passes_of(forward: Callable[[Tensor], Tensor]) -> Passes:
            def passes(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
                logits = forward(image)
                loss = F.cross_entropy(logits, label)
                loss.backward()
                return loss.detach(), logits.detach()

            return passes

        def step(passes: Passes) -> Work:
            def work() -> list[Tensor]:
                optim.zero_grad()
                _, logits = passes(image, label)
                optim.step()
                return [logits, *(p.grad for p in model.prompt_learner.parameters())]

            return work

        passes = {name: (passes_of(f),) for name, f in self.forwards(case, model).items()}
        return self.steps(step, passes, model)

    def steps(
        self, step: Callable[..., Work], passes: dict[str, tuple[Passes, ...]], model: nn.Module
    ) -> dict[str, Work]:
        """Returns each path's step; ours is replayed on a GPU, as in training (PromptTrainer).

        Args:
            step: makes the step of its passes, one as a rule.
            passes: of each path.
            model: what they learn.
        """
        works = {name: step(*some) for name, some in passes.items()}
        if self.device.type == "cuda":
            graphs = [StepGraph(p, model) for p in passes["ours"]]
            counted, works["ours"] = works["ours"], step(*graphs)
            for _ in range(1 + CHECKS):
                works["ours"]()
            works["ours"].counted, works["ours"].graph = counted, graphs[-1]
        return works

    def _test(self, case: Case, model: nn.Module, image: Tensor) -> dict[str, Work]:
        model.eval()

        def without_gradient(forward: Callable[[Tensor], Tensor]) -> Work:
            def work() -> list[Tensor]:
                with torch.no_grad():
                    return [forward(image)]

            return work

        works = {n: without_gradient(f) for n, f in self.forwards(case, model).items()}
        # With CoOp the text is encoded in the first batch; what is timed are the others.
        return {**works, "image": without_gradient(model.encode_image)}


def measure(
    bench: Bench, case: Case, seconds: float, room: int, compared: bool = False
) -> dict[str, Any]:
    """Measures a case; without the plain path where that would need more than `room` bytes, or too
    long and no bar needs it (`compared`: one does)."""
    works = bench.works(case)
    if not plain_is_possible(case, bench.device, room, compared):
        del works["plain"]
    differences = differences_of(works)
    # Half precision's gradients are sums that nearly cancel, the plain path's off by more than a
    # third at 500 classes: who is nearer to float64 is a question for gpu_day/half_precision.py.
    compared_ones = differences if bench.precision == "fp32" else differences[:1]
    allowed = 2e-3 if bench.precision == "fp32" else 0.1
    if any(difference > allowed for difference in compared_ones):
        raise AssertionError(f"{case.key}: the paths differ by {max(compared_ones):.1e}")
    times = by_turns(works, bench.device, seconds, warm="plain" if "plain" in works else "ours")
    result = {"key": case.key, **dataclasses.asdict(case)}
    result |= {
        "n_ctx": case.n_ctx or N_CTX.get(case.method),
        "difference": max(differences, default=None),
    }
    result |= {"ratio": ratio_of(times), "all_seconds": times}
    result["weight_bytes"] = bench.weight_bytes(case)
    for name in times:
        result[f"{name}_seconds"] = statistics.median(times[name])
        if name == "plain" and case.n_cls > 100:
            continue  # minutes, and nothing new
        work = getattr(works[name], "counted", works[name])  # a replay does not show what it does
        result[f"{name}_flops"] = count_flops(work)
        result[f"{name}_bytes"] = added_memory(work, bench.device)
    if hasattr(works["ours"], "graph"):
        del work
        works.clear()
        result |= captured_step(bench, case)
    return result


def plain_is_possible(case: Case, device: torch.device, room: int, compared: bool = False) -> bool:
    """Whether the plain path fits into `room` bytes, and ends in time or is needed."""
    prompts = case.prompts
    compared |= any(case.key in bar.keys for bar in BARS[device.type] if bar.to_plain)
    if device.type == "cpu" and prompts > PLAIN_PROMPTS and not compared:
        return False
    return case.part not in ("text", "step") or prompts * PLAIN_BYTES_PER_PROMPT <= room


def captured_step(bench: Bench, case: Case) -> dict[str, Any]:
    """Returns the GPU memory that torch holds at most while only our path runs, weights and graph
    included, and whether steps are replayed."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work = bench.works(case)["ours"]
    work()
    held = torch.cuda.max_memory_reserved()
    return {"ours_total_bytes": held, "captured": work.graph.replays()}


def class_names() -> dict[str, list[str]]:
    """Returns the class names of each dataset."""
    return json.loads((ROOT / "datasets/resources/classnames.json").read_text(encoding="utf-8"))


def select(args: argparse.Namespace) -> list[Case]:
    needed = {key for bar in BARS[args.device] for key in bar.keys}
    cases = sorted(CASES, key=lambda case: case.key not in needed)  # what bars need comes first
    if args.check and not args.json:
        cases = [case for case in cases if case.key in needed]
    if args.quick:
        cases = [case for case in cases if case.n_cls <= 50 and case.batch <= 10]
    if args.most_prompts:
        cases = [case for case in cases if case.prompts <= args.most_prompts]
    return [case for case in cases if asked_for(case, args.only)]


def asked_for(case: Case, only: list[str] | None) -> bool:
    """Whether a case is among those of `--only`, by whole words: "CoOp 50" is not "CoOp 500"."""
    return not only or any(f" {words} " in f" {case.key} " for words in only)


def rates(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Returns the rates of the machine that shares are shares of."""
    return {
        "peak_flops_per_s": matmul_peak(device, dtype),
        "memory_bytes_per_s": memory_rate(device),
    }


def add_shares(result: dict[str, Any], report: dict[str, Any]) -> None:
    """Adds our path's share of the matmul peak, and of the roofline: products or reading weights,
    whichever takes longer."""
    peak = max(report["peak_flops_per_s"].values())
    products = result["ours_flops"] / peak
    reading = result["weight_bytes"] / report["memory_bytes_per_s"]
    result["share_of_peak"] = products / result["ours_seconds"]
    result["share_of_roofline"] = max(products, reading) / result["ours_seconds"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="say which bars hold; fail if not all")
    parser.add_argument("--quick", action="store_true", help="at most 50 classes, 10 images")
    parser.add_argument("--only", nargs="+", help="words of keys, such as 'text CoOp 50'")
    parser.add_argument("--most-prompts", type=int, help="classes, with CoCoOp times images")
    parser.add_argument("--seconds", type=float, default=20, help="for each case, about")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: does it run at all?")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16"))
    parser.add_argument("--json", help="file for the results; those of other cases stay in it")
    args = parser.parse_args()
    device = torch.device(args.device)
    multiply_in_full()  # as `train.py` does
    report = {**describe_run(device=args.device), "threads": torch.get_num_threads(), "results": []}
    dtype = torch.float16 if args.precision == "fp16" else torch.float32
    report |= {"precision": args.precision, "backend": default_backend(device, dtype)}
    report |= rates(device, dtype)
    bench = Bench(device, args.precision, class_names(), SMALL if args.tiny else REAL)
    room = int(0.8 * free_bytes(device))
    for case in select(args):
        result = measure(bench, case, args.seconds, room)
        add_shares(result, report)
        add_result(report, result, args.json)
        print(line(result), flush=True)
    return failures(report["results"], BARS[args.device]) if args.check else 0


def line(result: dict[str, Any]) -> str:
    ratio = "-" if result["ratio"] is None else f"{result['ratio']:.1f}x"
    plain_s = f"{result['plain_seconds']:.3f}" if result["ratio"] else "-"
    return (
        f"{result['key']:24} plain {plain_s:>7} s, ours {result['ours_seconds']:.4f} s, "
        f"{ratio:>6}, {result['ours_flops'] / 1e9:.1f} GFLOP, "
        f"{100 * result['share_of_peak']:.0f}% of peak, "
        f"{100 * result['share_of_roofline']:.0f}% of roofline, "
        f"{(result['ours_bytes'] or 0) / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
