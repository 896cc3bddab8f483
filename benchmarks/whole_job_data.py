"""Data sets and weights for `whole_job`: files as large as the real ones, content from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dassl.data.datasets import Datum
from datasets.base import BenchmarkDataset, shipped_classnames
from encoders.openai import CLIP

# ViT-B/16 as OpenAI's; and one for a quick look at whether the benchmark works.
REAL = (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12)
SMALL = (64, 32, 2, 64, 8, 77, 49408, 64, 1, 2)


@dataclass(frozen=True)
class Shape:
    """What a data set costs: numbers of images, and their size in pixels."""

    dataset: str  # config file
    folder: str
    images: str  # folder of the images
    split: str
    n_base: int  # classes; as many are new, or one less
    train: int  # images a class, in the few-shot sample
    test: tuple[int, int]  # images of base and new classes
    size: tuple[int, int]  # width, height


SHAPES = {
    "eurosat": Shape(
        "eurosat", "eurosat", "2750", "split_zhou_EuroSAT.json", 5, 16, (4200, 3900), (64, 64)
    ),
    "caltech101": Shape(
        "caltech101",
        "caltech-101",
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        50,
        16,
        (1549, 916),
        (300, 225),
    ),
}


def write_data(root: Path, shape: Shape, test: tuple[int, int]) -> None:
    """Writes a data set of this shape with `test` images of base and new classes."""
    folder = root / shape.folder / shape.images
    names = shipped_classnames(shape.dataset)
    rng = np.random.default_rng(0)
    parts: dict[str, list[Datum]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(names):
        new = label >= shape.n_base
        n_classes = len(names) - shape.n_base if new else shape.n_base
        rank = label - shape.n_base if new else label
        n_test = test[new] // n_classes + (rank < test[new] % n_classes)
        wanted = {"train": shape.train, "val": 4, "test": n_test}
        (folder / f"{label:03}").mkdir(parents=True)
        for part, n in wanted.items():
            for i in range(n):
                path = folder / f"{label:03}" / f"{part}_{i}.jpg"
                _write_image(path, shape.size, rng)
                parts[part].append(Datum(str(path), label, classname=name))
    for items in parts.values():
        random.Random(0).shuffle(items)
    target = root / shape.folder / shape.split
    BenchmarkDataset.save_split(*parts.values(), target, folder)


def _write_image(path: Path, size: tuple[int, int], rng: np.random.Generator) -> None:
    coarse = rng.integers(0, 256, (size[1] // 16 + 1, size[0] // 16 + 1, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth) + rng.normal(0, 6, (size[1], size[0], 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def write_weights(path: Path, sizes: tuple[int, ...]) -> None:
    """Writes random weights in OpenAI's layout; half precision, as OpenAI's files have it."""
    torch.manual_seed(0)
    state = CLIP(*sizes).state_dict()
    rounded = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save(rounded, path)
