"""Train, val and test: how people call them, and that no image is in two of them."""

from __future__ import annotations

import os

from dassl.utils import DataError
from dassl.utils.files import listed
from dassl.utils.text import counted

UNSPLIT = "all"  # the part of images that nobody assigned to train, val or test
NAMES = {
    "train": "train training trainset train_set training_set",
    "val": "val valid validation valset val_set validation_set dev eval evaluation",
    "test": "test testing testset test_set testing_set",
}
_PART_OF = {name: part for part, names in NAMES.items() for name in names.split()}

Row = tuple[str, str]  # path of an image, its class as the folder or the file has it
Parts = dict[str, list[Row]]


def part_of(name: str) -> str | None:
    """Returns train, val or test for a name such as "Training" or "VALID"; None for others."""
    return _PART_OF.get(name.strip().casefold().replace("-", "_").replace(" ", "_"))


def file_key(path: str) -> object:
    """Returns what all paths to a file share: links, ./x and x, X where case is no matter."""
    state = os.stat(path)
    # Some file systems have no numbers for files.
    return (
        (state.st_dev, state.st_ino) if state.st_ino else os.path.normcase(os.path.realpath(path))
    )


def each_file_once(source: object, parts: Parts) -> tuple[Parts, list[str]]:
    """Returns the parts without second links to one file, and the paths that were left out.

    Raises:
        DataError: a file is in two parts, or has two labels.
    """
    seen: dict[object, tuple[str, str, str]] = {}
    kept: Parts = {part: [] for part in parts}
    linked: list[str] = []
    leaks: list[str] = []
    for part, rows in parts.items():
        for path, label in rows:
            first_part, first_label, first = seen.setdefault(file_key(path), (part, label, path))
            if first == path and first_part == part and first_label == label:
                kept[part].append((path, label))
            elif (first_part, first_label) == (part, label):
                linked.append(path)
            else:
                leaks.append(
                    f"{first} ({_where(first_part, first_label)}) and {path} "
                    f"({_where(part, label)})"
                )
    if leaks:
        raise DataError(
            f"{source} has {counted(len(leaks), 'image')} in two parts or under two labels; these "
            f"are one file: {listed(leaks)}. Keep each in one place: a test on training images "
            "says nothing."
        )
    return kept, linked


def _where(part: str, label: str) -> str:
    return label if part == UNSPLIT else f"{part}, {label}"
