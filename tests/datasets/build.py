"""Builds a dataset as train.py does, without a trainer around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from datasets.base import BenchmarkDataset

SPLIT = "split_zhou_EuroSAT.json"


def build(name: str, root: Path, **settings: Any) -> BenchmarkDataset:
    """Builds a registered dataset.

    Args:
        name: registry name.
        root: DATASET.ROOT.
        settings: SEED, or keys of DATASET such as NUM_SHOTS.
    """
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    cfg.VERBOSE = False
    cfg.SEED = settings.pop("SEED", 1)
    cfg.DATASET.NAME = name
    cfg.DATASET.ROOT = str(root)
    for key, value in settings.items():
        cfg.DATASET[key] = value
    return build_dataset(cfg)


def rows(items: list | None, root: Path) -> list[tuple[str, int, str]]:
    """Returns (path below root, label, class name) of each item."""
    return [
        (Path(item.impath).relative_to(root).as_posix(), item.label, item.classname)
        for item in items or []
    ]


def change(root: Path, alter: Any) -> dict[str, list]:
    """Calls `alter(lists)` on the content of EuroSAT's split file and writes it back."""
    path = root / "eurosat" / SPLIT
    lists = json.loads(path.read_text())
    alter(lists)
    path.write_text(json.dumps(lists))
    return lists
