"""Shared by the tests of own images: small trees, CSV files, and how to load them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import datasets
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset

ROOT = Path(__file__).resolve().parents[2]
BIRDS = ("crow", "house_sparrow", "jay", "wren")


def draw(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_classes(folder: Path, n: int = 10, classes: tuple[str, ...] = BIRDS) -> Path:
    for name in classes:
        for i in range(n):
            draw(folder / name / f"{i:02d}.jpg", i)
    return folder


def make_split(root: Path, **sizes: int) -> Path:
    for part, n in sizes.items():
        make_classes(root / part, n)
    return root


def make_cfg(**settings):
    """Returns a configuration with settings below DATASET, and SEED."""
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    cfg.merge_from_file(str(ROOT / "configs/datasets/folder.yaml"))
    cfg.SEED = settings.pop("SEED", 1)
    for key, value in settings.items():
        cfg.merge_from_list([f"DATASET.{key}", value if isinstance(value, str) else repr(value)])
    cfg.freeze()
    return cfg


def load(root: Path | str = "", **settings):
    return build_dataset(make_cfg(ROOT=str(root), **settings))


def paths(items, root: Path) -> list[str]:
    return [Path(item.impath).relative_to(root).as_posix() for item in items]


def sizes(dataset) -> tuple[int, int, int]:
    return len(dataset.train_x), len(dataset.val or ()), len(dataset.test)


PARTS = ("train", "train", "valid", "TEST")  # of the images of a class that `csv_rows` lists


def make_root(tmp_path: Path) -> Path:
    """Two classes of four images, as `csv_rows` lists them."""
    return make_classes(tmp_path / "birds", 4, ("crow", "jay"))


def csv_rows() -> list[str]:
    return [f"{c}/{i:02d}.jpg,{c},{PARTS[i]}" for c in ("crow", "jay") for i in range(4)]


def write_csv(path: Path, rows: list[str], header: str = "path,label,split") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path
