"""Parquet files of a hub become the folders that a dataset is read from."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import DataError
from dassl.utils.files import listed
from dassl.utils.locks import file_lock
from dassl.utils.logger import get_logger
from dassl.utils.text import counted
from datasets.manage.catalog import Entry
from datasets.manage.fetch import UNPACKING
from datasets.manage.hub_parquet import fetch_parquet, hub_name
from datasets.manage.sources import folder_of
from datasets.readers.parquet import ParquetImages, require_pyarrow
from datasets.readers.row_match import match_by_name, read_digests, require_same_labels
from datasets.readers.split_files import read_split_file
from datasets.resources import SPLITS

logger = get_logger(__name__)

Written = Iterator[tuple[str, bytes]]  # official path below the folder of images, and the file


def convert(entry: Entry, source: Path, root: Path, contents: Path | None = None) -> None:
    """Writes the official images among the rows of parquet files under their official paths.

    The parts and the order of the rows do not count: the official split does. Nothing is written
    unless every official image is found.

    Args:
        entry: which dataset.
        source: a parquet file, or a folder with some, or hub:<name> of a dataset there, whose
            files are fetched, and deleted once the images are in place.
        root: folder that holds all datasets.
        contents: a file of `sha256sum`'s lines; images are matched by their bytes. None: by names.

    Raises:
        UserError: the first thing that is wrong.
    """
    folder = folder_of(entry, root)
    cls = DATASET_REGISTRY.get(entry.name)
    official = official_labels(entry, folder)
    place = cls.locate(root)[1] / cls.landmark
    if place.is_dir():
        logger.info(f"{entry.name}: {place} is there already, and kept as it is")
        return
    waiting = f"  waiting for another process that downloads into {folder}"
    fetched = None
    if name := hub_name(source.as_posix()):
        require_pyarrow()  # before gigabytes come
        source = fetched = folder / f".parquet-{name.replace('/', '-')}"
        with file_lock(folder / ".download.lock", waiting):
            fetch_parquet(name, fetched)
    images = ParquetImages(source)
    files = counted(len(images.paths), "parquet file")
    logger.info(f"{entry.name}: {files} of {source}, to {folder}")
    found = _by_bytes(images, contents, official) if contents else _by_names(images, official)
    with file_lock(folder / ".download.lock", waiting):
        unpacked = Path(tempfile.mkdtemp(prefix=UNPACKING, dir=folder))
        try:
            _write(found, unpacked / "images", official)
            _place(unpacked / "images", folder / cls.image_dir)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
    if fetched:
        shutil.rmtree(fetched, ignore_errors=True)


def official_labels(entry: Entry, folder: Path) -> dict[str, int]:
    """Returns {path below the folder of images: label} of the official split.

    Raises:
        DataError: no split file ships or lies in the folder, or a path in it leads out.
    """
    name = DATASET_REGISTRY.get(entry.name).split_file
    places = [folder / name, SPLITS / f"{name}.gz"] if name else []
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"{entry.name} has no split file that names its images, in {folder} or among those "
            f"that ship; {'put ' + name + ' there first' if name else 'it cannot be converted'}"
        )
    labels: dict[str, int] = {}
    for item in (item for part in read_split_file(path, "")[0] for item in part):
        image = PurePosixPath(item.impath.lstrip("/\\"))
        if ".." in image.parts or ":" in image.parts[0]:
            raise DataError(f"{path} names {item.impath}, which lies outside the dataset")
        labels[image.as_posix()] = item.label
    return labels


def _by_names(images: ParquetImages, official: dict[str, int]) -> Written:
    rows = images.rows()
    column, paths = match_by_name(rows.texts, official)
    require_same_labels(paths, rows.labels, official)
    unused = sum(path is None for path in paths)
    logger.info(f"  matched by column {column}; in no part of the split: {counted(unused, 'row')}")
    if not rows.labels:
        logger.warning("  note: the rows have no labels with which the match could be tested")
    return ((path, image) for path, image in zip(paths, images.images()) if path)


def _by_bytes(images: ParquetImages, contents: Path, official: dict[str, int]) -> Written:
    digests = read_digests(contents, official)
    logger.info(f"  matching by the digests in {contents}")
    for image in images.images():
        for path in digests.pop(hashlib.sha256(image).hexdigest(), ()):
            yield path, image


def _write(found: Written, folder: Path, official: dict[str, int]) -> None:
    missing, other_format = set(official), 0
    for path, image in found:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image)
        missing.discard(path)
        is_jpeg = image.startswith(b"\xff\xd8")
        other_format += target.suffix.lower() in (".jpg", ".jpeg") and not is_jpeg
    if missing:
        raise DataError(
            f"{len(missing):,} of the {len(official):,} official images are in no row: "
            f"{listed(sorted(missing))}. The rows may have been encoded anew. Nothing was written."
        )
    if other_format:
        logger.warning(
            f"  note: in another format than .jpg says: {counted(other_format, 'image')}, encoded "
            "anew, and their pixels may not be the official ones"
        )


def _place(unpacked: Path, target: Path) -> None:
    """Moves the folder of images into place, or what it holds where the folder is there."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(unpacked, target)
        return
    for child in sorted(unpacked.iterdir()):
        if (target / child.name).exists():
            raise DataError(f"{target / child.name} is in the way; move it, and nothing is lost")
    for child in sorted(unpacked.iterdir()):
        os.rename(child, target / child.name)
