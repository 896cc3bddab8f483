"""One run of a whole job in a process of its own: by the project, or by the plain path.

`whole_job` starts it with a request on the command line and reads the last line of its output:
seconds of start-up, training and testing, with what of them went to data and to the image encoder,
and how much was done, so that they can be scaled to the whole job.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

import train
from benchmarks import plain
from benchmarks.loading import PlainDataset
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from dassl.engine import SimpleTrainer, TrainerX
from trainers import cocoop, coop
from trainers.clip_utils import load_clip
from trainers.image_encoder import ImageEncoder
from trainers.text_encoder import TextEncoder

RECIPES = {"CoOp": "CoOp/vit_b16_ctxv1", "CoCoOp": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}


class Clock:
    """Sums seconds by name, those inside of others once: "test/image" within "test"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.phase = ""
        self.part = ""
        self.epochs: list[dict[str, float]] = []  # of training, each by part

    def phases(self, owner: type, method: str, phase: str) -> None:
        """Counts calls of a method as a phase, unless they are part of another one."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            before, start = self.phase, time.perf_counter()
            self.phase = phase
            try:
                return original(*args, **kwargs)
            finally:
                passed = _synchronized() - start
                self.phase = before
                self._add(phase, passed)
                if before:
                    self._add(before, -passed)

        setattr(owner, method, timed)

    def parts(self, owner: type, method: str, part: str) -> None:
        """Counts calls of a method as a part of the phase that they are made in."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.part:
                return original(*args, **kwargs)
            self.part, start = f"{self.phase}/{part}", time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self._add(self.part, _synchronized() - start)
                self.part = ""

        setattr(owner, method, timed)

    def once(self, owner: type, method: str) -> None:
        """Counts calls of a method as start-up, wherever they happen."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = original(*args, **kwargs)
            passed = _synchronized() - start
            self._add("once", passed)
            for name in filter(None, (self.phase, self.part)):
                self._add(name, -passed)
            return result

        setattr(owner, method, timed)

    def laps(self, owner: type, method: str) -> None:
        """Notes what each call of a method, an epoch, took, by part."""
        original = getattr(owner, method)

        def noted(*args: Any, **kwargs: Any) -> Any:
            before = dict(self.seconds)
            result = original(*args, **kwargs)
            names = ("train", "train/data", "train/image")
            self.epochs.append({n: self.seconds.get(n, 0) - before.get(n, 0) for n in names})
            return result

        setattr(owner, method, noted)

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def _synchronized() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def arguments(request: dict[str, Any], output: str, **flags: Any) -> Namespace:
    options = {
        "DATASET.NUM_SHOTS": request["shots"],
        "MODEL.FIXED_VIEWS": request["fixed_views"],
        "MODEL.FEATURES.FOLDER": request["store"],
        "INPUT.SIZE": str((request["pixels"], request["pixels"])),
        **request.get("options", {}),
    }
    return Namespace(
        root=request["data"],
        seed=1,
        output_dir=f"{request['output']}/{output}",
        trainer=request["method"],
        backbone_path=request["weights"],
        dataset_config_file=str(ROOT / f"configs/datasets/{request['dataset']}.yaml"),
        config_file=str(ROOT / f"configs/trainers/{RECIPES[request['method']]}.yaml"),
        train_batch_size=request["batch"],
        epoch=request["epochs"],
        opts=[str(x) for pair in options.items() for x in pair],
        **flags,
    )


def run_ours(request: dict[str, Any], started: float) -> dict[str, Any]:
    """Trains on the base classes, tests them, then tests the new ones: the project's own way."""
    clock, begun = Clock(), []
    clock.phases(TrainerX, "run_epoch", "train")
    clock.laps(TrainerX, "run_epoch")
    clock.once(ImageEncoder, "_fold")
    clock.once(TextEncoder, "_fold")
    clock.phases(SimpleTrainer, "test", "test")
    clock.parts(ImageEncoder, "__call__", "image")
    clock.parts(_BaseDataLoaderIter, "__next__", "data")
    plain_train = TrainerX.train

    def noted(self: TrainerX) -> Any:
        begun.append(time.time())
        return plain_train(self)

    TrainerX.train = noted
    torch.set_num_threads(request["threads"])
    train.main(arguments(request, "base", subsample_classes="base"))
    known = sum(clock.seconds.get(phase, 0.0) for phase in ("train", "test"))
    start = time.perf_counter()
    flags = {"eval_only": True, "model_dir": f"{request['output']}/base"}
    train.main(
        arguments(request, "new", subsample_classes="new", load_epoch=request["epochs"], **flags)
    )
    again = time.perf_counter() - start
    again -= sum(clock.seconds.get(phase, 0.0) for phase in ("train", "test")) - known
    start = begun[0] - started + again + clock.seconds.get("once", 0.0)
    tested = {k: v for k, v in clock.seconds.items() if k.startswith("test")}
    return {"start": start, "epochs": clock.epochs, **tested}


def run_plain(request: dict[str, Any], started: float) -> dict[str, Any]:
    """The public formulation: a few training steps, then a few test images of each kind."""
    torch.set_num_threads(request["threads"])
    cfg = train.setup_cfg(_complete(arguments(request, "plain", subsample_classes="base")))
    torch.manual_seed(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clip_model = load_clip(cfg, "fp32").to(device).requires_grad_(False)
    module = {"CoOp": coop, "CoCoOp": cocoop}[request["method"]]
    logits_of = {"CoOp": plain.coop_logits, "CoCoOp": plain.cocoop_logits}[request["method"]]
    data = {}
    for kind in ("base", "new"):
        some = cfg.clone()
        some.defrost()
        some.DATASET.SUBSAMPLE_CLASSES = kind
        data[kind] = build_dataset(some)
    models = {
        k: module.CustomCLIP(cfg, d.classnames, clip_model).to(device) for k, d in data.items()
    }
    begun = time.time()

    def forward(kind: str, batch: dict) -> torch.Tensor:
        return logits_of(models[kind], clip_model, batch["img"].to(device))

    learner = models["base"].prompt_learner
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.002, momentum=0.9, weight_decay=5e-4)

    def step(batch: dict) -> None:
        loss = F.cross_entropy(forward("base", batch), batch["label"].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    batches = _batches(cfg, data["base"].train_x, request["batch"], True)
    train_seconds = _each(step, batches, request["plain_steps"])
    tested = {}
    with torch.no_grad():
        for kind in ("base", "new"):
            items = data[kind].test[: request["plain_test"]]
            size = min(cfg.DATALOADER.TEST.BATCH_SIZE, len(items))
            test = _batches(cfg, items, size, False)
            seconds = _each(lambda b: forward(kind, b).argmax(1).cpu(), test, 10**9)  # noqa: B023
            tested[f"test_{kind}"] = sum(seconds) / len(items)
    step_seconds = sum(train_seconds[1:]) / len(train_seconds[1:])  # the first one warms up
    return {"start": begun - started, "step": step_seconds, **tested}


def _batches(cfg: Any, items: list, size: int, is_train: bool) -> Iterator[dict]:
    """Batches without end in training: workers start anew for each epoch, as upstream's do."""
    dataset = PlainDataset(items, build_transform(cfg, is_train=is_train))
    for _ in itertools.count() if is_train else range(1):
        yield from DataLoader(
            dataset,
            batch_size=size,
            sampler=RandomSampler(items) if is_train else None,
            num_workers=min(cfg.DATALOADER.NUM_WORKERS, 2),
            drop_last=is_train,
        )


def _each(work: Callable[[dict], Any], batches: Iterator[dict], at_most: int) -> list[float]:
    seconds, end = [], time.perf_counter()
    for batch in itertools.islice(batches, at_most):
        work(batch)
        now = _synchronized()
        seconds.append(now - end)
        end = now
    return seconds


def _complete(args: Namespace) -> Namespace:
    return Namespace(**{**vars(train.build_parser().parse_args([])), **vars(args)})


def main() -> None:
    request = json.loads(sys.argv[1])
    run = {"ours": run_ours, "plain": run_plain}[request["path"]]
    with contextlib.redirect_stdout(io.StringIO()):
        result = run(request, request["started"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
