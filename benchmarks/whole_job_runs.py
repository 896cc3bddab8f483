"""One run of a whole job in a process of its own: by the project, or by the plain path.

`whole_job` starts it with a request on the command line and reads the last line of its output:
the seconds of start-up and of each lap (an epoch or step, an evaluation or batch), with what of
them went to data and to the image encoder. `whole_job` scales them to the whole job.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from threading import current_thread, main_thread
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
from dassl.data.workers import Loader
from dassl.engine import SimpleTrainer, TrainerX
from dassl.utils.device import device_of
from dassl.utils.logger import quiet
from encoders.image import ImageEncoder
from encoders.openai import CLIP
from encoders.text import TextEncoder
from trainers import cocoop, coop
from trainers.clip_trainer import load_clip
from trainers.prompt_trainer import resolve_precision

Lap = dict[str, float]
RECIPES = {"CoOp": "CoOp/vit_b16_ctxv1", "CoCoOp": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}


class Clock:
    """Sums seconds by phase ("train", "test") and by part of a phase ("test/image").

    Parts inside of parts count once, and so does what other threads do beside this one: nothing.

    Attributes:
        laps: of each phase, what each of its calls took: "total", and of that "data" and "image".
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.laps: dict[str, list[Lap]] = defaultdict(list)
        self.phase = ""
        self.part = ""

    @contextlib.contextmanager
    def lap(self, phase: str) -> Iterator[None]:
        """Counts what is done inside as one lap of a phase."""
        names = {"total": phase, "data": f"{phase}/data", "image": f"{phase}/image"}
        before, start = dict(self.seconds), time.perf_counter()
        self.phase = phase
        yield
        self.phase = ""
        self.seconds[phase] += _synchronized() - start
        lap = {key: self.seconds[name] - before.get(name, 0.0) for key, name in names.items()}
        self.laps[phase].append(lap)

    def phases(self, owner: type, method: str, phase: str) -> None:
        """Counts each call of a method as a lap."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.lap(phase):
                return original(*args, **kwargs)

        setattr(owner, method, timed)

    def parts(self, owner: type, method: str, part: str) -> None:
        """Counts calls of a method as a part of the phase that they are made in."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.part or current_thread() is not main_thread():
                return original(*args, **kwargs)
            self.part, start = f"{self.phase}/{part}", time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds[self.part] += _synchronized() - start
                self.part = ""

        setattr(owner, method, timed)

    def once(self, owner: type, method: str) -> None:
        """Takes calls of a method out of the phase and part that they are made in."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = original(*args, **kwargs)
            passed = _synchronized() - start
            for name in filter(None, (self.phase, self.part)):
                self.seconds[name] -= passed
            return result

        setattr(owner, method, timed)


def _synchronized() -> float:
    if torch.cuda.is_initialized():
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
    clock = Clock()
    clock.phases(TrainerX, "run_epoch", "train")
    clock.phases(SimpleTrainer, "test", "test")
    clock.once(ImageEncoder, "_fold")
    clock.once(TextEncoder, "_fold")
    clock.parts(ImageEncoder, "__call__", "image")
    clock.parts(_BaseDataLoaderIter, "__next__", "data")
    clock.parts(Loader, "__iter__", "data")  # workers start
    torch.set_num_threads(request["threads"])
    train.main(arguments(request, "base", subsample_classes="base"))
    flags = {"eval_only": True, "model_dir": f"{request['output']}/base"}
    train.main(
        arguments(request, "new", subsample_classes="new", load_epoch=request["epochs"], **flags)
    )
    counted = sum(lap["total"] for laps in clock.laps.values() for lap in laps)
    return {"start": time.time() - started - counted, **clock.laps}


def run_plain(request: dict[str, Any], started: float) -> dict[str, Any]:
    """The public formulation: a few training steps, then a few test images of each kind.

    Test images are taken as loaded when they are wanted: workers load them beside the model.
    """
    torch.set_num_threads(request["threads"])
    cfg = train.setup_cfg(arguments(request, "plain", subsample_classes="base"))
    torch.manual_seed(1)
    device = device_of(cfg)
    key = f"TRAINER.{request['method'].upper()}.PREC"
    precision = resolve_precision(cfg.TRAINER[request["method"].upper()].PREC, device, key)
    clip_model = load_clip(cfg, precision).to(device).requires_grad_(False)
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

    def forward(kind: str, batch: dict) -> torch.Tensor:
        return logits_of(models[kind], clip_model, batch["img"].to(device))

    learner = models["base"].prompt_learner
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.002, momentum=0.9, weight_decay=5e-4)
    clock = Clock()
    clock.parts(CLIP, "encode_image", "image")
    clock.parts(_BaseDataLoaderIter, "__next__", "data")
    start = time.time() - started

    batches = _batches(cfg, data["base"].train_x, request["batch"], True)
    for _ in range(request["plain_steps"]):
        with clock.lap("train"):
            batch = next(batches)
            loss = F.cross_entropy(forward("base", batch), batch["label"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
    for kind in ("base", "new"):
        items = data[kind].test[: request["plain_test"]]
        size = min(cfg.DATALOADER.TEST.BATCH_SIZE, len(items))
        for batch in _batches(cfg, items, size, False):
            with torch.no_grad(), clock.lap(f"test_{kind}"):
                forward(kind, batch).argmax(1).cpu()
    return {"start": start, **clock.laps}


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


def main() -> None:
    request = json.loads(sys.argv[1])
    run = {"ours": run_ours, "plain": run_plain}[request["path"]]
    with quiet():
        result = run(request, request["started"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
