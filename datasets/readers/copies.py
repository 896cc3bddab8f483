"""Images that are byte copies of each other, in two parts of a split or under two labels."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from dassl.data.datasets import Datum
from dassl.utils.files import listed

ENDS = 4096  # bytes at the start and the end of a file that tell most apart
CHUNK, THREADS = 64, 8  # files that a thread looks at in one go

Place = tuple[str, Datum]  # train, val or test, and the item
Copies = list[list[Place]]


def across_parts(parts: Mapping[str, list[Datum]]) -> Copies:
    """Returns groups of items with the same bytes that lie in two parts, or have two labels.

    Few files are read whole: first sizes must agree, then both ends. One list may serve as two
    parts (ImageNet's val set is its test set).
    """
    places: list[Place] = []
    lists: list[list[Datum]] = []
    for part, items in parts.items():
        if not any(items is known for known in lists):
            lists.append(items)
            places += [(part, item) for item in items]
    groups = [places]
    for key in (_size, _ends, _content):
        groups = _divided(groups, key)
    return [group for group in groups if len({(part, item.label) for part, item in group}) > 1]


def describe_copies(copies: Copies, at_most: int = 2) -> str:
    """Returns how many there are, and the first of them."""
    shown = [
        " = ".join(f"{item.impath} ({part}, {item.classname})" for part, item in group[:3])
        for group in copies
    ]
    what = "image is" if len(copies) == 1 else "images are"
    return (
        f"{len(copies):,} {what} there as copies in two parts or classes: {listed(shown, at_most)}"
    )


def _divided(groups: list[list[Place]], key: Callable[[str], Hashable]) -> list[list[Place]]:
    """Divides groups by a key of the files; places that stand alone are left out."""
    numbered = [(number, place) for number, group in enumerate(groups) for place in group]
    chunks = [numbered[start : start + CHUNK] for start in range(0, len(numbered), CHUNK)]
    finer: dict[Hashable, list[Place]] = defaultdict(list)
    with ThreadPoolExecutor(THREADS) as pool:
        keys = pool.map(lambda some: [key(item.impath) for _, (_, item) in some], chunks)
        for (number, place), value in zip(numbered, chain.from_iterable(keys)):
            finer[number, value].append(place)
    return [places for places in finer.values() if len(places) > 1]


def _size(path: str) -> int:
    return os.path.getsize(path)


def _ends(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        start = file.read(ENDS)
        file.seek(max(ENDS, os.path.getsize(path) - ENDS))
        return hashlib.sha256(start + file.read(ENDS)).digest()


def _content(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # noqa: PTH123
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()
