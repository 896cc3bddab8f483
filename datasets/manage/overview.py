"""Tables of all datasets: what there is, and what lies in a folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import MissingFileError
from datasets.manage.catalog import Entry
from datasets.readers.image_tree import EXTENSIONS
from datasets.resources import SPLITS

BUDGET = 5.0  # seconds to count the files of one dataset


def place_of(entry: Entry, root: Path) -> tuple[Path, Path]:
    """Returns where the folder of a dataset and its images are, or should be.

    Raises:
        MissingFileError: there is no folder `root`.
    """
    if not root.is_dir():
        raise MissingFileError(
            f"--root {root} does not exist; it must name the folder that holds all datasets"
        )
    cls = DATASET_REGISTRY.get(entry.name)
    dataset_dir, image_dir = cls.locate(root)
    landmark = image_dir / cls.landmark
    return dataset_dir, image_dir if landmark.is_dir() else landmark


def list_table(entries: list[Entry]) -> str:
    """Returns name, classes, images per split, terms and way to get of each dataset."""
    rows = [
        (entry.name, entry.classes, *map(_count, entry.sizes), entry.terms, _way(entry))
        for entry in entries
    ]
    headers = ("name", "classes", "train", "val", "test", "terms", "how to get it")
    align = ("left", "right", "right", "right", "right", "left", "left")
    return tabulate(rows, headers, tablefmt="simple", colalign=align, disable_numparse=True)


def status_table(entries: list[Entry], root: Path) -> str:
    """Returns state, images, disk use and what is missing of each dataset below `root`."""
    rows = [(entry.name, *_status(entry, root)) for entry in entries]
    headers = ("name", "state", "images", "on disk", "what is missing")
    align = ("left", "left", "right", "right", "left")
    return tabulate(
        rows,
        headers,
        tablefmt="simple",
        colalign=align,
        disable_numparse=True,
        maxcolwidths=[None, None, None, None, 44],
    )


def _count(size: int | None) -> str:
    return "-" if size is None else f"{size:,}"


def _way(entry: Entry) -> str:
    if entry.by_hand:
        return "by hand"
    if not entry.sources:
        return "built in"
    source = entry.source()
    size = f", {source.size / 1e9:.1f} GB" if source.size else ""
    return f"download{size}" + ("" if source.name == "official" else f" ({source.name})")


def _status(entry: Entry, root: Path) -> tuple[str, str, str, str]:
    dataset_dir, image_dir = place_of(entry, root)
    if not dataset_dir.is_dir():
        return "absent", "", "", ""
    images, size, complete = _measure(dataset_dir)
    at_least = "" if complete else ">"
    missing = []
    if not image_dir.is_dir():
        missing.append(f"{image_dir.relative_to(dataset_dir)}/")
    elif images < entry.images and complete:
        missing.append(f"{entry.images - images:,} images")
    shipped = (SPLITS / f"{DATASET_REGISTRY.get(entry.name).split_file}.gz").is_file()
    needs = () if shipped else entry.needs
    missing += [need for need in needs if not (dataset_dir / need).exists()]
    if not images:
        return "absent", "", "", ""
    state = "partly there" if missing else "ready"
    return state, f"{at_least}{images:,}", f"{at_least}{_bytes(size)}", ", ".join(missing)


def _bytes(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _measure(folder: Path) -> tuple[int, int, bool]:
    """Returns number of images, bytes, and whether all was counted within the budget."""
    images = size = 0
    end = time.monotonic() + BUDGET
    for count, entry in enumerate(_walk(folder)):
        with contextlib.suppress(OSError):  # it was removed meanwhile
            size += entry.stat().st_size
        images += entry.name.lower().endswith(EXTENSIONS)
        if count % 1000 == 999 and time.monotonic() > end:
            return images, size, False
    return images, size, True


def _walk(folder: Path) -> Iterator[os.DirEntry]:
    """Yields the files below a folder, linked folders included, loops left out."""
    seen = set()
    stack = [os.fspath(folder)]
    while stack:
        path = stack.pop()
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        with contextlib.suppress(PermissionError), os.scandir(path) as found:
            for entry in found:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    stack.append(entry.path)
                elif entry.is_file():
                    yield entry
