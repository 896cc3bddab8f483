"""Split files: reading them, and what must hold of a split before anything is drawn from it."""

from __future__ import annotations

import hashlib
import os
import posixpath
import unicodedata
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from dassl.data.datasets import Datum
from dassl.utils import DataError, MissingFileError, listdir_nohidden, read_json
from dassl.utils.files import PathLike, git_blob_id, listed
from dassl.utils.logger import get_logger
from dassl.utils.text import counted, on_one_line
from datasets.readers.class_order import LARGEST, first_gaps, number
from datasets.readers.image_checks import check_header
from datasets.readers.image_tree import EXTENSIONS, is_no_class

logger = get_logger(__name__)

Split = tuple[list[Datum], list[Datum], list[Datum]]  # train, val, test
PARTS = ("train", "val", "test")


def read_split_file(path: Path, image_dir: PathLike) -> tuple[Split, str]:
    """Returns the split in a file, and the note that the file has if we made it ourselves.

    Args:
        path: the file, {"train": [[path, label, class name], ...], "val": ..., "test": ...};
            gzipped if its name ends in .gz. Backslashes in paths, from files written on Windows,
            are taken for slashes.
        image_dir: folder that the paths in it start from.

    Raises:
        DataError: it holds something else.
    """
    start = str(image_dir) + os.sep
    lists = read_json(path)
    try:
        split = tuple(
            [
                Datum(start + _plain_path(name), _label(label), classname=_name(classname))
                for name, label, classname in lists[part]
            ]
            for part in PARTS
        )
        return split, str(lists.get("note", ""))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is no split file ({_reason(error)}): expected lists of [path, label, class "
            'name] under "train", "val" and "test". Delete it to use the official one.'
        ) from None


def _reason(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


def _plain_path(name: str) -> str:
    """Returns a path with slashes alone, and one spelling: ./x and x are one image."""
    path = _text(name.replace("\\", "/"))
    return posixpath.normpath(path) if "./" in path or "//" in path else path


def _label(value: Any) -> int:
    """Returns the whole number that is meant: 1, 1.0, "1" or "1.0", but not 1.7 and not true."""
    if type(value) is int and abs(value) <= LARGEST:
        return value
    whole = number(str(value)) if isinstance(value, float | str) else None
    if whole is None:
        raise ValueError(f"{value!r:.50} is no label")
    return whole


def _name(value: Any) -> str:
    name = _text(value)
    return name if name.isprintable() else on_one_line(name)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.50} is no text")
    if not value.isascii():
        value.encode()  # half of a character could be written nowhere
    return value


def split_lists(split: Split, image_dir: PathLike) -> dict[str, list]:
    """Returns what a split file holds."""
    return {
        part: [
            [path, item.label, item.classname]
            for path, item in zip(paths_below(image_dir, items), items)
        ]
        for part, items in zip(PARTS, split)
    }


def is_official(path: Path, split: Split, image_dir: PathLike, shipped: Path, blob: str) -> bool:
    """Whether a split file is known to be the official one.

    Args:
        path: the file.
        split: what was read from it.
        image_dir: folder that its paths start from.
        shipped: the official file, if it ships with the project.
        blob: its id as a blob of git, where it does not; empty: not known.
    """
    if path == shipped or (blob and git_blob_id(path) == blob):
        return True
    if not shipped.is_file() or tuple(map(len, split)) != _sizes(shipped):
        return False

    def rows(of: Split) -> list[list[tuple[str, int, str]]]:
        return [[(item.impath, item.label, item.classname) for item in part] for part in of]

    return rows(split) == rows(read_split_file(shipped, image_dir)[0])


@cache
def _sizes(shipped: Path) -> tuple[int, ...]:
    """Returns how many images the parts of a split file that ships with the project have."""
    return tuple(map(len, read_split_file(shipped, "")[0]))


def is_ours(path: Path) -> bool:
    """Whether this project made a split file, where there was no official one."""
    if path.suffix == ".gz" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"note"' in file.read(64)


def files_now(folder: PathLike) -> str:
    """Returns how many files a dataset has, and a digest of their names and the texts' sizes."""
    digest, count = hashlib.sha256(), 0
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        state = os.stat(place)
        new = (state.st_dev, state.st_ino) not in seen  # a link may lead back
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if new and not is_no_class(name))
        for name in sorted(files) if new else ():
            if not name.startswith(".") and not _is_derived(name):
                path = os.path.join(place, name)
                size = -1 if name.lower().endswith(EXTENSIONS) else os.lstat(path).st_size
                digest.update(f"{os.path.relpath(path, folder)}\n{size}\n".encode(errors="replace"))
                count += 1
    return f"{count:,} files, {digest.hexdigest()[:16]}"


def _is_derived(name: str) -> bool:
    return name.endswith(".json") and name.startswith(("split_", "index_"))


def paths_below(folder: PathLike, items: list[Datum]) -> list[str]:
    """Returns the items' paths, relative to `folder`, with slashes."""
    start = str(folder) + os.sep
    paths = [
        path[len(start) :] if path.startswith(start) else os.path.relpath(path, folder)
        for path in (item.impath for item in items)
    ]
    return paths if os.sep == "/" else [path.replace(os.sep, "/") for path in paths]


def check_split(source: object, split: Split) -> None:
    """Looks for label gaps, labels with two names, and files that several parts hold.

    Two classes may share a name (ImageNet has two such pairs), and one list may serve as two
    parts (ImageNet's val set is its test set).

    Args:
        source: what the split was read from, for the messages.
        split: the three lists.

    Raises:
        DataError: the first thing that is wrong.
    """
    train = split[0]
    if not train:
        raise DataError(f"{source} has no training images")
    parts = list({id(items): items for items in split}.values())
    names: dict[int, str] = {}
    for items in parts:
        for item in items:
            if names.setdefault(item.label, item.classname) != item.classname:
                raise DataError(
                    f"{source} calls label {item.label} both '{names[item.label]}' and "
                    f"'{item.classname}' ({item.impath}); each label needs one class name"
                )
    with_images = {item.label for item in train}
    gap = first_gaps(with_images, max(names) + 1)
    if gap or min(names) < 0:
        raise DataError(
            f"{source} has no training images for label {listed(gap or [min(names)])}; labels must "
            f"count from 0 to {max(names)} without gaps. Number the classes anew, or add images."
        )
    _check_duplicates(source, parts)


def _check_duplicates(source: object, parts: list[list[Datum]]) -> None:
    seen: set[str] = set()
    twice: list[str] = []
    for items in parts:
        paths = {item.impath: item.label for item in items}.keys()
        if len(paths) < len(items):
            _require_one_label(source, items)
            again = [path for path, n in Counter(i.impath for i in items).items() if n > 1]
            logger.warning(
                f"Note: {source} lists {counted(len(again), 'image')} twice: {listed(again)}"
            )
        twice += sorted(paths & seen)
        seen |= paths
    if twice:
        raise DataError(
            f"{source} has {counted(len(twice), 'image')} in more than one of train, val and test: "
            f"{listed(twice)}. Keep each in one part only: a test on training images says nothing."
        )


def _require_one_label(source: object, items: list[Datum]) -> None:
    labels: dict[str, int] = {}
    for item in items:
        if labels.setdefault(item.impath, item.label) != item.label:
            raise DataError(
                f"{source} gives {item.impath} the labels {labels[item.impath]} and {item.label}; "
                "each image needs one"
            )


def locate_files(source: object, image_dir: PathLike, split: Split) -> Split:
    """Returns the split with the paths under which the images exist; lists each folder once.

    A name with accents can be stored composed or decomposed (macOS); either finds the other.

    Raises:
        MissingFileError: images do not exist.
    """
    folders: dict[str, set[str]] = {}
    missing: list[str] = []

    def locate(item: Datum) -> Datum:
        folder, _, name = item.impath.rpartition(os.sep)
        if folder not in folders:
            there = Path(folder)
            folders[folder] = set(listdir_nohidden(there)) if there.is_dir() else set()
        if name in folders[folder]:
            return item
        other = _other_form(item.impath, str(image_dir))
        if other is None:
            missing.append(item.impath)
            return item
        return Datum(other, item.label, item.domain, item.classname)

    located = tuple([locate(item) for item in items] for items in split)
    if missing:
        wanted = sum(len(items) for items in split)
        raise MissingFileError(
            f"{len(missing):,} of the {wanted:,} images that {source} names are missing: "
            f"{listed(missing)}. Unpack the dataset anew into {image_dir}; to use other images, "
            "put a split file of your own beside them."
        )
    for item in chain(*located):
        if not item.impath.lower().endswith(EXTENSIONS):
            check_header(item.impath)  # Thumbs.db, say
    return located


def _other_form(path: str, image_dir: str) -> str | None:
    """Returns `path` with the accents below `image_dir` as they are on disk; None: not there."""
    if path.startswith(image_dir) and not path.isascii():
        for form in ("NFC", "NFD"):
            other = image_dir + unicodedata.normalize(form, path[len(image_dir) :])
            if Path(other).is_file():
                return other
    return None
