"""Whole runs through the real entry point: a small EuroSAT tree, the embedded CLIP, a CPU."""

from __future__ import annotations

import random
import subprocess
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

import train
from datasets.base import BenchmarkDataset
from datasets.eurosat import CLASSNAMES

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("INPUT.SIZE", "(32, 32)", "DATALOADER.NUM_WORKERS", "0", "DATALOADER.TEST.BATCH_SIZE", "6")


def ours(paths: Iterable[Path], root: Path = ROOT) -> list[Path]:
    """Returns those of the paths that git knows of: somebody else's files may lie beside them.

    Without git, all are ours.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--others"]
    found = subprocess.run(command, capture_output=True, text=True)
    others = {root / name for name in found.stdout.split("\0") if name}
    return sorted(path for path in paths if path not in others)


def make_eurosat(root: Path, per_class: int = 10) -> Path:
    """Writes `per_class` images of 32 x 32 a class and a split of 50/20/30% below `root`."""
    folder = root / "eurosat" / "2750"
    rng = np.random.RandomState(0)
    for name in CLASSNAMES:
        (folder / name).mkdir(parents=True)
        for index in range(1, per_class + 1):
            pixels = rng.randint(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{index}.jpg")
    split = BenchmarkDataset.read_and_split_data(
        folder, new_cnames=CLASSNAMES, rng=random.Random(1)
    )
    BenchmarkDataset.save_split(*split, root / "eurosat" / "split_zhou_EuroSAT.json", folder)
    return root


def arguments(
    root: Path,
    output: Path,
    *opts: str,
    trainer: str = "CoOp",
    dataset: str = "eurosat",
    recipe: str = "CoOp/vit_b16_ctxv1",
    **flags: object,
) -> Namespace:
    """Returns what a notebook would hand to `train.main`: only the fields it cares about."""
    return Namespace(
        root=str(root),
        output_dir=str(output),
        trainer=trainer,
        dataset_config_file=str(ROOT / f"configs/datasets/{dataset}.yaml"),
        config_file=str(ROOT / f"configs/trainers/{recipe}.yaml"),
        opts=[*SMALL, *opts],
        **{"backbone": "tiny", "seed": 1, "subsample_classes": "base", **flags},
    )


def run(*args: object, **kwargs: object) -> float | None:
    """Runs `train.main` on `arguments(...)`; returns the accuracy in per cent."""
    return train.main(arguments(*args, **kwargs))


def log_lines(output: Path) -> list[str]:
    return (output / "log.txt").read_text(encoding="utf-8").splitlines()
