"""The methods beside CoOp and CoCoOp next to the same written plainly, in one process, by turns.

    python benchmarks/family.py --json benchmarks/results/family_cpu.json
    python benchmarks/family.py --check

The plain path (`benchmarks/plain.py`) has 77 positions, CLIP's own modules and autograd; class
features of hand-written prompts are computed once in both. Weights are random, of the size of
ViT-B/16, with the depths and numbers of vectors of the public recipes.

ProMetaR's step is two, in both, the second through an inner step, with gradients of gradients.

Parts: "text" is the text features' forward and backward pass, "step" a training step on images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import trainers
from benchmarks import plain
from benchmarks.bars import FAMILY_BARS, failures
from benchmarks.machine import add_result, describe_run
from benchmarks.measure import Work
from benchmarks.text_encoding import (
    NAMES,
    Bench,
    Case,
    add_shares,
    asked_for,
    class_names,
    line,
    measure,
    rates,
)
from benchmarks.whole_job_data import REAL, SMALL
from dassl.config import Config, get_cfg_default
from dassl.engine import TrainerBase
from dassl.engine.step_graph import Passes
from dassl.utils.logger import quiet
from encoders.openai import CLIP
from encoders.text import free_bytes
from trainers import kgcoop, maple, prograd, prometar, promptsrc, tcp

TEXT = {"KgCoOp": kgcoop, "ProGrad": prograd, "TCP": tcp}
MODULES = {"MaPLe": maple, "PromptSRC": promptsrc, **TEXT}
PLAIN_TEXT = {**dict.fromkeys(TEXT, plain.coop_features), "TCP": plain.tcp_features}
PLAIN_LOSS = {"MaPLe": plain.maple_loss, "PromptSRC": plain.promptsrc_loss}
TEMPLATE = "a photo of a {}."
SIZES = (5, 50, 100, 500)
CASES = (
    *(Case("step", method, n, 4) for n in SIZES for method in ("MaPLe", "PromptSRC")),
    *(Case("step", "ProMetaR", n, 4) for n in (5, 50)),
    *(Case("text", method, n, 4) for n in (5, 50, 100) for method in PLAIN_TEXT),
)


class Meta(prometar.ProMetaR):
    """ProMetaR, whose steps are its trainer's, on a benchmark's CLIP and without a dataset."""

    def __init__(self, cfg: Config, names: list[str], clip_model: CLIP) -> None:
        TrainerBase.__init__(self)
        self.cfg, self.device = cfg, clip_model.logit_scale.device
        self.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=names))
        self.load_clip = lambda: clip_model
        self.build_model()


class FamilyBench(Bench):
    """A CLIP with random weights, and both paths' works on it."""

    def model(self, case: Case) -> nn.Module | Meta:
        cfg = get_cfg_default()
        trainers.extend_cfg(cfg)
        blocks = len(self.clip.transformer.resblocks)
        if blocks < cfg.TRAINER.MAPLE.PROMPT_DEPTH:  # the tiny model
            cfg.TRAINER.MAPLE.PROMPT_DEPTH = blocks
            for node in (cfg.TRAINER.PROMPTSRC, cfg.TRAINER.PROMETAR):
                node.PROMPT_DEPTH_VISION = node.PROMPT_DEPTH_TEXT = blocks
            cfg.TRAINER.TCP.DEPTH = blocks - 1
        names = self.names[next(name for name, most in NAMES if case.n_cls <= most)][: case.n_cls]
        template = [TEMPLATE] if case.method in PLAIN_TEXT else []
        torch.manual_seed(1)
        with quiet():
            if case.method == "ProMetaR":
                cfg.TRAINER.PROMETAR.PREC = self.precision
                return Meta(cfg, names, self.clip)
            model = MODULES[case.method].CustomCLIP(cfg, names, self.clip, *template)
        return model.to(self.device)

    def _text(self, case: Case, model: nn.Module, image: Tensor) -> dict[str, Work]:
        weights = torch.randn(case.n_cls, self.embed, device=self.device)
        learned = list(model.learned.parameters())

        def both_passes(encode: Callable[[], Tensor]) -> Work:
            def work() -> list[Tensor]:
                out = encode()
                return [out.detach(), *torch.autograd.grad((out * weights).sum(), learned)]

            return work

        return {
            "plain": both_passes(lambda: PLAIN_TEXT[case.method](model, self.clip)),
            "ours": both_passes(model.text_features),
        }

    def _step(self, case: Case, model: nn.Module, image: Tensor) -> dict[str, Work]:
        label = torch.arange(case.batch, device=self.device) % case.n_cls
        if isinstance(model, Meta):
            return self._meta_step(model, image, label)
        learned = list(model.learned.parameters())
        # A rate of zero: each step costs what it costs, and both paths stay comparable.
        optim = torch.optim.SGD(learned, lr=0.0, momentum=0.9)

        def ours(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
            if hasattr(model, "loss"):
                loss, logits = model(image, label)
            else:
                logits = model(image)
                loss = F.cross_entropy(logits, label)
            loss.backward()
            return loss.detach(), logits.detach()

        def plainly(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
            loss = PLAIN_LOSS[case.method](model, self.clip, image, label)
            loss.backward()
            return loss.detach(), loss.detach()

        def step(passes: Passes) -> Work:
            def work() -> list[Tensor]:
                optim.zero_grad()
                loss, _ = passes(image, label)
                optim.step()
                return [loss, *(p.grad for p in learned)]

            return work

        return self.steps(step, {"plain": (plainly,), "ours": (ours,)}, model)

    def _meta_step(self, trainer: Meta, image: Tensor, label: Tensor) -> dict[str, Work]:
        learned = [p for part in trainer._models.values() for p in part.parameters()]
        optim = torch.optim.SGD(learned, lr=0.0, momentum=0.9)
        torch.manual_seed(3)
        task = trainer.draw_task(label).to(self.device)

        def step(whole: Passes, meta: Passes) -> Work:
            def work() -> list[Tensor]:
                found = []
                for passes, given in ((whole, label), (meta, task)):
                    optim.zero_grad()
                    loss, _ = passes(image, given)
                    optim.step()
                    found += [loss, *(p.grad for p in learned if p.grad is not None)]
                return found

            return work

        plainly = plain.ProMetaR(trainer, self.clip)
        passes = {
            "plain": (plainly.whole, plainly.meta),
            "ours": (partial(trainer.passes, trainer.model), trainer.meta_passes),
        }
        return self.steps(step, passes, trainer.model)


def select(args: argparse.Namespace) -> list[Case]:
    needed = {key for bar in FAMILY_BARS for key in bar.keys}
    cases = [case for case in CASES if case.key in needed or not args.check or args.json]
    if args.tiny:
        cases = [case for case in cases if case.n_cls <= 50]
    return [case for case in cases if asked_for(case, args.only)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="say which bars hold; fail if not all")
    parser.add_argument("--only", nargs="+", help="words of keys, such as 'step MaPLe'")
    parser.add_argument("--seconds", type=float, default=20, help="for each case, about")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: does it run at all?")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16"))
    parser.add_argument("--json", help="file for the results; those of other cases stay in it")
    args = parser.parse_args()
    device = torch.device(args.device)
    report: dict[str, Any] = {**describe_run(device=args.device), "results": []}
    report |= {"threads": torch.get_num_threads(), "precision": args.precision}
    report |= rates(device, torch.float16 if args.precision == "fp16" else torch.float32)
    bench = FamilyBench(device, args.precision, class_names(), SMALL if args.tiny else REAL)
    room = int(0.8 * free_bytes(device))
    for case in select(args):
        result = measure(bench, case, args.seconds, room, compared=True)
        add_shares(result, report)
        add_result(report, result, args.json)
        print(line(result), flush=True)
    return failures(report["results"], FAMILY_BARS) if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
