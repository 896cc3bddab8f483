"""Images of one's own in folders: which folders are parts, and which are classes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import DataError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from dassl.utils.text import counted, spelled
from datasets.readers.image_checks import ImageChecks
from datasets.readers.image_tree import ImageTree, PassedOver
from datasets.readers.parts import UNSPLIT, Parts, Row, part_of

logger = get_logger(__name__)

LAYOUTS = "<class>/*.jpg, or train/<class>/*.jpg and test/<class>/*.jpg"
LIST_THEM = "list the images in a file with the columns path,label,split (DATASET.CSV)"
MAX_DEPTH = 4  # folders that hold nothing but the next one


def read_folders(root: str, checks: ImageChecks) -> tuple[Parts, PassedOver]:
    """Lists the images of each part; {UNSPLIT: ...} if there are no train and test folders.

    Args:
        root: holds class folders, or parts that do, or one folder that holds either.
        checks: of the files that may be images.

    Raises:
        DataError: the layout is none that we know, or may be meant in two ways.
    """
    tree = ImageTree(root, checks)
    place = _inside(tree, root)
    if place != root:
        logger.warning(f"Note: the images are read from {place}, the only folder with images")
    parts = _part_folders(tree, place)
    if parts:
        return _read_parts(tree, place, parts), tree.passed
    names = _class_folders(tree, place)
    _refuse_flat_parts(tree, place, names)
    _refuse_deeper_classes(tree, place, names)
    return {UNSPLIT: _class_rows(tree, place, names)}, tree.passed


def _inside(tree: ImageTree, path: str, part: str | None = None) -> str:
    """Returns the folder that is meant where one folder alone holds everything.

    Args:
        part: that is looked into; in a folder for train, another one may be called so.
    """
    for _ in range(MAX_DEPTH):
        names = [name for name in tree.folders(path) if tree.any_below(os.path.join(path, name))]
        if tree.images(path) or len(names) != 1 or part_of(names[0]) not in (None, part):
            break
        inner = os.path.join(path, names[0])
        if tree.images(inner) or not tree.folders(inner):
            break
        tree.note(path, files=False)
        path = inner
    return path


def _class_folders(tree: ImageTree, path: str) -> list[str]:
    """Returns the names of the class folders in a folder; notes what else there is."""
    tree.note(path, files=False)
    stray = tree.images(path)
    names = []
    for name in tree.folders(path):
        if tree.only_runs(os.path.join(path, name)):
            tree.passed.add("folders of runs", os.path.relpath(os.path.join(path, name), tree.root))
        else:
            names.append(name)
    if names:
        for image in stray:
            where = os.path.relpath(os.path.join(path, image), tree.root)
            tree.passed.add("images outside of class folders", where)
    return names


def _class_rows(tree: ImageTree, parent: str, names: list[str]) -> list[Row]:
    if not names:
        n_images = len(tree.images(parent))
        seen = counted(n_images, "image") if n_images else "nothing to use"
        raise DataError(
            f"{parent} has no class folders; expected {LAYOUTS}, but it holds {seen}. For other "
            f"layouts {LIST_THEM}."
        )
    rows: list[Row] = []
    spellings: dict[str, str] = {}
    for name in names:
        paths = tree.below(os.path.join(parent, name))
        if not paths:
            raise DataError(
                f"class folder {spelled(os.path.join(parent, name))} holds no images"
                f"{tree.instead(os.path.join(parent, name))}; add some or remove the folder"
            )
        # macOS stores accents decomposed: one class has one name on every machine.
        plain = unicodedata.normalize("NFC", name)
        if spellings.setdefault(plain, name) != name:
            both = f"{spellings[plain]!a} and {name!a}"
            logger.warning(f"Note: {parent} holds one class in two spellings: {both}")
        rows += [(path, plain) for path in paths]
    return rows


# --- parts ----------------------------------------------------------------------------------------


def _part_folders(tree: ImageTree, place: str) -> dict[str, str]:
    """Returns {part: folder name} of the folders that hold class folders.

    A class may be called "train": such a folder holds images, not class folders.
    """
    named = [name for name in tree.folders(place) if part_of(name)]
    nested = [name for name in named if tree.folders(os.path.join(place, name))]
    pure = [name for name in nested if not tree.images(os.path.join(place, name))]
    if len({part_of(name) for name in nested}) > 1:
        pure = nested  # images that lie beside class folders make no class of train and test
    found: dict[str, str] = {}
    for name in pure:
        part = str(part_of(name))
        if part in found:
            raise DataError(
                f"{place} holds both {found[part]} and {name}, and both mean {part}; put them "
                "together, or rename one of them"
            )
        found[part] = name
    if not found:
        return {}
    for needed in ("train", "test"):
        if needed not in found:
            flat = [name for name in named if name not in pure]
            also = f" ({listed(flat)} holds no class folders)" if flat else ""
            raise DataError(
                f"{place} holds {listed(list(found.values()))} but no {needed} folder{also}; add "
                f"{needed}/<class>/, or put all class folders directly into {place} to have them "
                "split"
            )
    return found


def _read_parts(tree: ImageTree, place: str, found: dict[str, str]) -> Parts:
    tree.note(place, files=False)
    for name in tree.folders(place):
        if name not in found.values() and tree.any_below(os.path.join(place, name)):
            inside = os.path.relpath(os.path.join(place, name), tree.root)
            tree.passed.add("folders with images beside train and test", inside)
    train = os.path.join(place, found["train"])
    deeper = Path(_inside(tree, train, "train")).relative_to(train).parts
    parts: Parts = {}
    for part in ("train", "val", "test"):
        if part in found:
            folder = _as_deep(tree, os.path.join(place, found[part]), deeper, part)
            if not os.path.isdir(folder):
                raise DataError(
                    f"the class folders of train lie in {os.path.join(train, *deeper)}, but there "
                    f"is no {folder}; put all parts in the same order"
                )
            names = _class_folders(tree, folder)
            if part == "train":
                _refuse_deeper_classes(tree, folder, names)
            parts[part] = _class_rows(tree, folder, names)
    return parts


def _as_deep(tree: ImageTree, folder: str, names: Sequence[str], part: str) -> str:
    """Returns the folder below a part's that is reached by `names`, or by the part's own name."""
    for name in names:
        there = tree.folders(folder) if os.path.isdir(folder) else []
        alone = len(there) == 1 and part_of(there[0]) == part
        folder = os.path.join(folder, there[0] if alone else name)
    return folder


# --- layouts that may be meant in two ways --------------------------------------------------------


def _refuse_flat_parts(tree: ImageTree, place: str, names: list[str]) -> None:
    """Raises DataError if train and test hold images, but no class folders."""
    used = [name for name in names if tree.any_below(os.path.join(place, name))]
    if len(used) > 1 and all(map(part_of, used)):
        raise DataError(
            f"{place} holds {listed(used)} with images directly in them, so their classes are not "
            f"known; expected {LAYOUTS}. Or {LIST_THEM}, for classes that are called so, too."
        )


def _refuse_deeper_classes(tree: ImageTree, place: str, names: list[str]) -> None:
    """Raises DataError if what would be the classes hold folders that could be the classes."""
    inner: list[set[str]] = []
    parts: dict[str, str] = {}  # part → where
    for name in names:
        path = os.path.join(place, name)
        folders = {sub for sub in tree.folders(path) if tree.any_below(os.path.join(path, sub))}
        if folders and not tree.images(path):
            inner.append(folders)
            parts |= {str(part_of(sub)): f"{name}/{sub}" for sub in folders if part_of(sub)}
    if len(parts) > 1:
        raise DataError(
            f"{place} holds {listed(sorted(parts.values()))}: parts lie within classes; expected "
            f"{LAYOUTS}. Turn the two levels round, or {LIST_THEM}."
        )
    shared = set.intersection(*inner) if inner else set()
    if len(names) > 1 and len(inner) == len(names) and len(shared) > 1:
        raise DataError(
            f"{listed(names)} in {place} all hold folders called {listed(sorted(shared))}, so "
            f"either level may be the classes; expected {LAYOUTS}. Put one level away, or "
            f"{LIST_THEM}."
        )
