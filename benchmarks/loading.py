"""Images per second of this project's loaders beside plain ones, in one process, by turns.

    python benchmarks/loading.py --json benchmarks/results/loading_cpu.json

"bytes" is how test images come to a frozen encoder, on --device (`features/reading.py`).

The plain loader is torch's DataLoader over a dataset that opens each file every time, with workers
(if any) that start anew for each pass. Both apply the same transforms, and the tensors are compared
before anything is timed. torch computes on one thread, so that only loading is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from yacs.config import CfgNode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import add_result, describe_run
from dassl.config import get_cfg_default
from dassl.data import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from dassl.utils import read_image
from dassl.utils.logger import quiet
from features.reading import ENCODED_AT_ONCE, ByteImages, joined, reading_loader

Rate = Callable[[], float]  # images per second

RECIPE = ROOT / "configs/trainers/base.yaml"  # 224 pixels, bicubic; batches of 32 and 100


class PlainDataset(Dataset):
    """Opens and transforms an image each time it is asked for."""

    def __init__(self, items: list[Datum], transform: Any) -> None:
        self.items, self.transform = items, transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        img = self.transform(read_image(item.impath))
        return {"img": img, "label": item.label, "index": index}


def make_images(folder: Path, n: int, width: int, height: int) -> list[Datum]:
    """Writes JPEG files that take as long to decode as photographs: smooth shapes, and noise."""
    items = []
    for i in range(n):
        rng = np.random.default_rng(i)
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(smooth) + rng.normal(0, 6, (height, width, 3))
        path = folder / f"{i:05d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        items.append(Datum(str(path), i % 10, classname=str(i % 10)))
    return items


def build_pair(cfg: CfgNode, items: list[Datum], is_train: bool) -> tuple[DataLoader, DataLoader]:
    """Returns our loader and the plain one for the same work."""
    with quiet():  # the list of transforms
        transform = build_transform(cfg, is_train=is_train)
    size = (cfg.DATALOADER.TRAIN_X if is_train else cfg.DATALOADER.TEST).BATCH_SIZE
    ours = build_data_loader(
        cfg,
        "RandomSampler" if is_train else "SequentialSampler",
        items,
        batch_size=size,
        tfm=transform,
        is_train=is_train,
    )
    plain = DataLoader(
        PlainDataset(items, transform),
        batch_size=size,
        shuffle=is_train,
        num_workers=ours.num_workers,
        drop_last=is_train,
        pin_memory=ours.pin_memory,
    )
    return ours, plain


def require_same(ours: DataLoader, plain: DataLoader) -> None:
    """Raises AssertionError unless two passes give the same tensors."""
    sums = []
    for loader in (ours, plain):
        torch.manual_seed(0)
        sums.append(
            [
                (batch["index"].tolist(), batch["img"].double().sum().item())
                for _ in range(2)
                for batch in loader
            ]
        )
    assert sums[0] == sums[1]


def timed_pass(loader: DataLoader) -> float:
    """Returns images per second of one pass."""
    start = time.perf_counter()
    n_images = sum(len(batch["img"]) for batch in loader)
    return n_images / (time.perf_counter() - start)


def measure(cfg: CfgNode, items: list[Datum], is_train: bool, n_rounds: int) -> dict[str, Any]:
    """Times `n_rounds` passes of each loader by turns.

    Our first pass, which starts workers and decodes what will be kept, is timed apart.
    """
    require_same(*build_pair(cfg, items, is_train))
    ours, plain = build_pair(cfg, items, is_train)
    first = timed_pass(ours)
    result = compare(lambda: timed_pass(ours), lambda: timed_pass(plain), n_rounds)
    loading = "train" if is_train else "test"
    return {
        "key": f"{loading} {cfg.DATALOADER.NUM_WORKERS}",
        "loading": loading,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "images": len(items),
        "cached_mib": ours.dataset.images.bytes / 2**20,
        "ours_first_pass_images_per_s": first,
        **result,
    }


def compare(ours: Rate, plain: Rate, n_rounds: int) -> dict[str, Any]:
    """Returns images per second of both, by turns."""
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(n_rounds):
        rates["plain"].append(plain())
        rates["ours"].append(ours())
    return {
        "ours_images_per_s": statistics.median(rates["ours"]),
        "plain_images_per_s": statistics.median(rates["plain"]),
        # Of neighbouring passes: a machine with other work to do slows both down.
        "ratio": statistics.median(a / b for a, b in zip(rates["ours"], rates["plain"])),
        "all_passes": rates,
    }


def measure_bytes(
    cfg: CfgNode, items: list[Datum], device: torch.device, n_rounds: int
) -> dict[str, Any]:
    """Times how test images come to the encoder: as bytes, read by all cores, beside plain floats.

    Workers start with each pass of both.
    """
    _, plain = build_pair(cfg, items, is_train=False)
    like, _ = build_pair(cfg, items, is_train=False)
    images, at_once = ByteImages(like.dataset), ENCODED_AT_ONCE[device.type]
    readers = []

    def of_bytes() -> Iterator[torch.Tensor]:
        readers[:] = [reading_loader(images.dataset, range(len(items)), like, at_once)]
        batches = (batch["img"] for batch in readers[0])
        return map(images.floats, joined(batches, at_once, device))

    def of_floats() -> Iterator[torch.Tensor]:
        return (batch["img"].to(device) for batch in plain)

    assert torch.equal(torch.cat(list(of_bytes())), torch.cat(list(of_floats())))

    def rate(passed: Callable[[], Iterator[torch.Tensor]]) -> float:
        start = time.perf_counter()
        checks = [some.sum() for some in passed()]
        torch.stack(checks).sum().item()  # waits for a GPU
        return len(items) / (time.perf_counter() - start)

    result = compare(lambda: rate(of_bytes), lambda: rate(of_floats), n_rounds)
    reader = readers[0]
    in_flight = reader.num_workers * (reader.prefetch_factor or 0) * reader.batch_size
    height, width = cfg.INPUT.SIZE
    return {
        "key": f"bytes {cfg.DATALOADER.NUM_WORKERS}",
        "loading": "bytes",
        "device": device.type,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "processes": reader.num_workers,
        "images": len(items),
        "in_flight_mib": in_flight * 3 * height * width / 2**20,
        **result,
    }


def show(report: dict[str, Any], result: dict[str, Any], path: str | None) -> None:
    add_result(report, result, path)
    print(
        "{loading:5} {num_workers} workers: {ours_images_per_s:6.0f} images/s, plain "
        "{plain_images_per_s:6.0f}, ratio {ratio:.2f}".format(**result),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train-images", type=int, default=160)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), help="width and height")
    parser.add_argument("--workers", type=int, nargs="+", default=(0, 2))
    parser.add_argument("--rounds", type=int, default=7, help="passes of each loader")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where bytes go")
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report = {
        **describe_run(device=args.device),
        "image_size": list(args.size),
        "rounds": args.rounds,
        "results": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        items = make_images(Path(folder), max(args.train_images, args.test_images), *args.size)
        report["mean_file_kib"] = statistics.mean(p.stat().st_size for p in Path(folder).iterdir())
        report["mean_file_kib"] /= 1024
        for n_workers in args.workers:
            cfg = get_cfg_default()
            cfg.merge_from_file(str(RECIPE))
            cfg.DATALOADER.NUM_WORKERS = n_workers
            for is_train, n_images in ((True, args.train_images), (False, args.test_images)):
                show(report, measure(cfg, items[:n_images], is_train, args.rounds), args.json)
            device = torch.device(args.device)
            result = measure_bytes(cfg, items[: args.test_images], device, args.rounds)
            show(report, result, args.json)
    if not args.json:
        print(json.dumps({k: v for k, v in report.items() if k != "results"}, indent=2))


if __name__ == "__main__":
    main()
