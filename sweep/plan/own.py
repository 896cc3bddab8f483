"""Datasets of one's own in a plan: `folder` is --root itself, `folder/birds` its folder `birds`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

OWN = "folder"  # the file in configs/datasets
_NAME = re.compile(rf"{OWN}/(?!\.)[^/\\]+")


def is_own(dataset: str) -> bool:
    return dataset == OWN or _NAME.fullmatch(dataset) is not None


def own_name(dataset: str) -> str:
    """Returns "birds" for "folder/birds"; other names as they are."""
    return dataset.rpartition("/")[2]


def place_below(dataset: str, root: str) -> str:
    """Returns the DATASET.ROOT of a dataset; that of named ones of one's own lies below `root`."""
    below = is_own(dataset) and dataset != OWN and root
    return str(Path(root, own_name(dataset))) if below else root


def config_of(dataset: str) -> str:
    """Returns the file in configs/datasets, without suffix."""
    return OWN if is_own(dataset) else dataset


def found_below(names: Sequence[str], known: Iterable[str], root: str) -> list[str]:
    """Returns the names, with "folder/birds" for "birds" where `root` holds a folder of that name.

    Args:
        names: of --datasets.
        known: datasets that are called so already.
        root: of --root.
    """
    known = {*known, "all"}
    return [
        f"{OWN}/{name}"
        if name not in known and _NAME.fullmatch(f"{OWN}/{name}") and Path(root, name).is_dir()
        else name
        for name in names
    ]
