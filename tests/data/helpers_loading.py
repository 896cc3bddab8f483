"""Shared by the loading tests: small JPEG files, configurations, and what a loader gives."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from yacs.config import CfgNode

from dassl.config import get_cfg_default
from dassl.data.datasets import Datum

SIZE = (40, 30)  # width, height
BYTES = 40 * 30 * 4  # of one decoded image


def make_items(folder: Path, n: int, n_classes: int = 3) -> list[Datum]:
    """Writes `n` different JPEG files and returns them as items."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for i in range(n):
        pixels = np.random.RandomState(i).randint(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        path = folder / f"{i:03d}.jpg"
        Image.fromarray(pixels).save(path)
        items.append(Datum(str(path), i % n_classes, classname=f"class {i % n_classes}"))
    return items


def make_cfg(workers: int = 0, cache_mb: int = 1024) -> CfgNode:
    cfg = get_cfg_default()
    cfg.USE_CUDA = False
    cfg.INPUT.SIZE = (16, 16)
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.DATALOADER.CACHE_MB = cache_mb
    return cfg


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def passes(loader: torch.utils.data.DataLoader, n: int, seed: int = 1) -> list[torch.Tensor]:
    """Returns indices and images of `n` passes, and then the next random number."""
    seed_all(seed)
    out = []
    for _ in range(n):
        for batch in loader:
            out += [batch["index"], batch["img"]]
    return [*out, torch.rand(1)]


def assert_same(got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
