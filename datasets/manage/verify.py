"""Whether a dataset is what the papers used: folders, split, files, images, few-shot samples."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import DataError, MissingFileError, UserError, read_image, read_json
from dassl.utils.files import listed
from dassl.utils.logger import quiet
from datasets.base import BenchmarkDataset
from datasets.few_shot import draw_sample, sample_info
from datasets.manage.catalog import Entry
from datasets.manage.overview import place_of
from datasets.readers.copies import across_parts, describe_copies
from datasets.readers.image_checks import ImageChecks, require_images
from datasets.readers.split_files import PARTS, Split, read_split_file
from datasets.resources import SPLITS

SAMPLE = 300  # images that are decoded unless all are asked for
SHOTS = (1, 2, 4, 8, 16)  # of the published samples

Finding = tuple[str, str]  # what was checked, and what was found


class Absent(MissingFileError):  # noqa: N818 (a state to report, not an error to fix)
    """The dataset is not there at all."""


class Fault(DataError):  # noqa: N818
    """The first thing that is wrong with a dataset, and the remedy."""


def verify_steps(
    entry: Entry, root: Path, full: bool = False, seeds: Sequence[int] = (1, 2, 3)
) -> Iterator[Finding]:
    """Checks a dataset step by step.

    Args:
        entry: which one.
        root: folder that holds all datasets.
        full: decode all images, not SAMPLE of them.
        seeds: of the few-shot samples to compare with the published ones.

    Yields:
        What was checked and found right.

    Raises:
        Absent: it is not there.
        Fault: the first thing that is wrong.
    """
    dataset_dir, image_dir = _find(entry, root)
    _check_empty_folders(image_dir)
    _check_official_lists(entry, dataset_dir, root)
    dataset = _read(entry, root)
    yield "split", _check_split(entry, dataset)
    parts = parts_of(dataset)
    yield "classes", _check_classes(entry, dataset, parts)
    items = list({item.impath: item for part in parts.values() for item in part}.values())
    yield "files", _check_files(entry, dataset, items)
    yield "images", _check_images(items, full, dataset)
    if full and (copies := across_parts(parts)):  # the benchmarks are as they are: only said
        yield "copies", describe_copies(copies)
    yield "few-shot", _check_few_shot(entry, root, dataset, parts, seeds)


def read(entry: Entry, root: Path) -> BenchmarkDataset:
    """Reads the full dataset through its class, without the lines that it prints.

    Raises:
        UserError: the class says what is wrong.
    """
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    cfg.DATASET.NAME, cfg.DATASET.ROOT = entry.name, str(root)
    with quiet():
        return DATASET_REGISTRY.get(entry.name)(cfg)


# --- folders --------------------------------------------------------------------------------------


def _find(entry: Entry, root: Path) -> tuple[Path, Path]:
    """Returns the folders of a dataset and of its images; they are there."""
    dataset_dir, image_dir = place_of(entry, root)
    if image_dir.is_dir():
        return dataset_dir, image_dir
    cls = DATASET_REGISTRY.get(entry.name)
    folder, inner = root / cls.dataset_dir, Path(cls.image_dir) / cls.landmark
    for other in (root.absolute().parent, *_folders(root)):
        if (other / cls.dataset_dir / inner).is_dir():
            raise Fault(f"--root is {root}, but the data lie below {other}; type --root {other}")
    if (root / inner).is_dir():
        raise Fault(
            f"--root is {root}, which looks like the dataset's own folder. It must be named "
            f"'{cls.dataset_dir}', and --root must name the folder that holds it."
        )
    for deep in _folders(folder, depth=3):
        if deep.parts[-len(inner.parts) :] == inner.parts:
            raise Fault(f"the images lie in {deep}, but are expected in {folder / inner}; move it")
    loose = _class_folders(cls) & {path.name for path in _folders(folder)}
    if loose:
        raise Fault(
            f"class folders such as {min(loose)} lie in {folder} itself, but are expected in "
            f"{folder / inner}; move them there"
        )
    if any(not name.startswith(".") for name in _names(folder)):
        raise Fault(f"{folder} is there, but {folder / inner} is not; {_fetch_again(entry, root)}")
    raise Absent(f"there is no {folder / inner}; {_fetch_again(entry, root)}")


def _fetch_again(entry: Entry, root: Path) -> str:
    return f"to get it: {entry.command('download', root)}"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder)) if folder.is_dir() else []
    except PermissionError:
        raise Fault(f"{folder} cannot be read: permission denied") from None


def _folders(folder: Path, depth: int = 1) -> list[Path]:
    found: list[Path] = []
    for name in _names(folder):
        path = folder / name
        if not name.startswith(".") and path.is_dir():
            found.append(path)
            if depth > 1 and len(found) < 1000:
                found += _folders(path, depth - 1)
    return found


def _class_folders(cls: type[BenchmarkDataset]) -> set[str]:
    """Returns the folders that the shipped split names, if there is one."""
    shipped = _shipped(cls, "")
    paths = [item.impath.strip("/") for part in shipped or () for item in part]
    return {path.split("/")[0] for path in paths if "/" in path}


def _shipped(cls: type[BenchmarkDataset], image_dir: str) -> Split | None:
    path = SPLITS / f"{cls.split_file}.gz"
    if not path.is_file():
        return None
    return read_split_file(path, image_dir)[0]


def _check_empty_folders(image_dir: Path) -> None:
    for folder in _folders(image_dir):
        if not any(not name.startswith(".") for name in _names(folder)):
            raise Fault(
                f"folder {folder} is empty; unpack the dataset anew, or remove the folder if the "
                "dataset has no such class"
            )


def _check_official_lists(entry: Entry, dataset_dir: Path, root: Path) -> None:
    """Where we ship no split, the dataset's own lists or the official split file must be there."""
    for need in entry.needs:
        path = dataset_dir / need
        split_file = DATASET_REGISTRY.get(entry.name).split_file
        built = path.is_file() and need == split_file and "note" in _json(path)
        if built:
            raise Fault(
                f"{path} was made by this project because the official one was missing: results "
                f"are not comparable. Delete it; {_fetch_again(entry, root)}"
            )
        if not path.is_file() or not path.stat().st_size:
            state = "empty" if path.is_file() else "missing"
            raise Fault(
                f"{path} is {state}, so there is no official split; {_fetch_again(entry, root)}"
            )


def _json(path: Path) -> dict:
    try:
        return read_json(path)
    except DataError as error:
        raise Fault(str(error)) from None


# --- split ----------------------------------------------------------------------------------------


def _read(entry: Entry, root: Path) -> BenchmarkDataset:
    try:
        return read(entry, root)
    except UserError as error:
        raise Fault(str(error)) from None
    except Exception as error:  # whatever a damaged annotation file does to its reader
        raise Fault(
            f"its split or annotation files cannot be read ({type(error).__name__}: {error}); "
            "unpack them anew"
        ) from None


def parts_of(dataset: BenchmarkDataset) -> dict[str, list[Datum]]:
    """Returns the items of train, val and test."""
    return dict(zip(PARTS, (dataset.train_x or [], dataset.val or [], dataset.test or [])))


def _check_split(entry: Entry, dataset: BenchmarkDataset) -> str:
    official = _shipped(type(dataset), dataset.image_dir)
    parts = parts_of(dataset)
    if official is not None:
        _compare(dataset, parts, dict(zip(PARTS, official)))
    sizes = []
    for part, size in zip(PARTS, entry.sizes):
        there = len(parts[part])
        if size is not None and there != size:
            raise Fault(
                f"{part} has {_images(there)}; {entry.name} has {size:,}. The lists or folders in "
                f"{dataset.dataset_dir} are not the official ones: move them away and fetch the "
                "dataset anew."
            )
        if size is not None:
            sizes.append(f"{there:,} {part}")
    kinds = {"official split": "official, ", "split file of one's own": "not known as official, "}
    kind = kinds.get(dataset.split_source, "")
    return f"{kind}{', '.join(sizes)}; SHA-256 {dataset.split_digest[:16]}"


def _compare(dataset: BenchmarkDataset, parts: dict, official: dict) -> None:
    """Raises Fault with the first difference between the split and the one that we ship."""
    own, known = (
        {
            path: (part, item.label, item.classname)
            for part, items in lists.items()
            for path, item in zip(dataset.relative_paths(items), items)
        }
        for lists in (parts, official)
    )
    differing = sorted(p for p in own.keys() | known.keys() if own.get(p) != known.get(p))
    if not differing:
        return
    first = differing[0]
    raise Fault(
        f"the split differs from the official one in {_images(len(differing))}: {first} is "
        f"{_row(own.get(first))}, but officially {_row(known.get(first))}. Delete "
        f"{Path(dataset.dataset_dir) / dataset.split_file} to use the official split, which ships "
        "with this project."
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _row(row: tuple[str, int, str] | None) -> str:
    return "in no part" if row is None else f"in {row[0]} with label {row[1]} ({row[2]})"


def _check_classes(entry: Entry, dataset: BenchmarkDataset, parts: dict) -> str:
    if dataset.num_classes != entry.classes:
        raise Fault(
            f"{dataset.num_classes} classes were found; {entry.name} has {entry.classes}. Look for "
            f"folders too many or too few in {dataset.image_dir}."
        )
    for (part, items), wanted in zip(parts.items(), entry.per_class):
        if wanted is None:
            continue
        for label, count in sorted(Counter(item.label for item in items).items()):
            if count != wanted:
                raise Fault(
                    f"class {label} ({dataset.classnames[label]}) has {_images(count)} in {part}; "
                    f"every class of {entry.name} has {wanted}. Fetch the dataset anew."
                )
    return f"{entry.classes}, from {dataset.classnames[0]} to {dataset.classnames[-1]}"


# --- files and images -----------------------------------------------------------------------------


def _check_files(entry: Entry, dataset: BenchmarkDataset, items: list[Datum]) -> str:
    """Looks at the folders themselves: the class may have read an index of them."""
    folders: dict[str, dict[str, int]] = defaultdict(dict)
    for item in items:
        folder, name = os.path.split(item.impath)
        folders[folder][name] = item.label
    missing = []
    for folder, wanted in folders.items():
        there = set(_names(Path(folder)))
        missing += [os.path.join(folder, name) for name in wanted if name not in there]
    if missing:
        raise Fault(
            f"{len(missing):,} of {len(items):,} images are missing: {listed(missing)}. Unpack the "
            "dataset anew."
        )
    extra = _extra_folders(entry, folders)
    if extra:
        raise Fault(
            f"{listed(extra)} is no class of {entry.name}; move it out of {Path(extra[0]).parent}"
        )
    return f"all {len(items):,} are there"


def _extra_folders(entry: Entry, folders: dict[str, dict[str, int]]) -> list[str]:
    """Returns folders that lie among class folders and hold no image of the split."""
    of_one_class = [folder for folder, names in folders.items() if len(set(names.values())) == 1]
    if len(of_one_class) < 2:
        return []
    known = set(of_one_class) | {str(parent) for f in of_one_class for parent in Path(f).parents}
    return [
        str(path)
        for parent in sorted({str(Path(folder).parent) for folder in of_one_class})
        for path in _folders(Path(parent))
        if str(path) not in known and path.name not in entry.ignored
    ]


def require_decoding(paths: list[str], read: Callable[[str], Any], advice: str) -> None:
    """Raises Fault with the images that `read` cannot read."""
    try:
        require_images(ImageChecks(read, what="decoding"), paths, advice)
    except DataError as error:
        raise Fault(str(error)) from None


def _check_images(items: list[Datum], full: bool, dataset: BenchmarkDataset) -> str:
    step = 1 if full else max(1, len(items) // SAMPLE)
    paths = [item.impath for item in items][::step]
    advice = f"Fetch the file anew, or unpack the dataset anew into {dataset.dataset_dir}."
    require_decoding(paths, read_image, advice)
    hint = "" if step == 1 else " (a sample; --full: all)"
    return f"{len(paths):,} of {len(items):,} decoded{hint}"


# --- few-shot samples -----------------------------------------------------------------------------


def _check_few_shot(
    entry: Entry, root: Path, dataset: BenchmarkDataset, parts: dict, seeds: Sequence[int]
) -> str:
    """Draws the samples as a run would, and compares them with the published ones."""
    if not dataset.few_shot:
        return "none: test data only"
    met = 0
    for seed in seeds:
        for shots in SHOTS:
            per_class = (shots, min(shots, dataset.max_val_shots))
            with quiet():
                sample = draw_sample(
                    dataset, parts["train"], parts["val"], per_class, random.Random(seed)
                )
            published = sample_info(dataset, sample, shots, seed)["published"]
            if published is False:
                raise Fault(
                    f"the {shots}-shot sample of seed {seed} is not the published one: the split "
                    "has other images, or the same ones in another order. "
                    f"{_split_remedy(entry, root, dataset)}"
                )
            met += bool(published)
    if not met:
        return "no published samples to compare with"
    which = ", ".join(map(str, seeds))
    return f"all {met} published samples of seeds {which} are met"


def _split_remedy(entry: Entry, root: Path, dataset: BenchmarkDataset) -> str:
    if dataset.split_file:
        path = Path(dataset.dataset_dir) / dataset.split_file
        return f"Move {path} away; {_fetch_again(entry, root)}"
    lists = listed(entry.needs, at_most=4)
    return f"Unpack {lists} anew into {dataset.dataset_dir}."
