"""Which images the class folders of a large dataset hold: listed once, then read from an index.

The index is JSON beside the data. It holds nothing that depends on where the data lie, and a
folder's entry counts only as long as the folder's times of change are those that were seen. One
of them can be set by anybody, as by a backup that is unpacked; the other by nobody.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dassl.utils import DataError, MissingFileError, read_json
from dassl.utils.files import PathLike
from dassl.utils.logger import get_logger
from dassl.utils.text import counted, spelled
from datasets.readers.derived_files import derived_paths, save_derived
from datasets.readers.image_checks import check_header
from datasets.readers.image_tree import PassedOver, is_image, is_no_class

logger = get_logger(__name__)

VERSION = 3  # 1 listed whatever lay in a class folder; 2 knew one of its times
FLAT = ""  # stands for the folder itself, where there are images and no class folders


def list_folders(dataset_dir: PathLike, folder: PathLike) -> dict[str, list[str]]:
    """Returns {class folder: image names}, both sorted; hidden files and folders are passed over.

    Args:
        dataset_dir: where the index is kept.
        folder: holds the class folders, or the images themselves: then the key is `FLAT`.

    Raises:
        MissingFileError: there is no such folder.
        DataError: it is empty, or a class folder is.
    """
    folder = Path(folder)
    changed = _times_of_change(folder)
    name = f"index_{folder.name}.json"
    old: dict[str, Any] = {}
    for path in derived_paths(dataset_dir, name):
        old = old or _read_index(path)
    images: dict[str, list[str]] = {}
    passed = PassedOver()
    relisted = 0
    for key, times in changed.items():
        entry = old.get(key)
        if entry and entry.get("changed_ns") == times:
            # One string a folder: a thousand are read ten times faster than a million names.
            images[key] = entry["images"].split("/")
        else:
            images[key] = image_names(folder / key, passed)
            relisted += 1
    passed.say(folder)
    if relisted or len(old) != len(changed):
        total = sum(len(names) for names in images.values())
        anew = counted(relisted, "folder")
        logger.info(f"Listed {anew} anew in {folder}: {counted(total, 'image')} in all")
        entries = {
            key: {"changed_ns": changed[key], "count": len(names), "images": "/".join(names)}
            for key, names in images.items()
        }
        index = {"version": VERSION, "folder": folder.name, "count": total, "folders": entries}
        save_derived(index, dataset_dir, name)
    return images


def _times_of_change(folder: Path) -> dict[str, list[int]]:
    """Returns {class folder: times}, sorted; a file added, removed or renamed changes them."""
    if not folder.is_dir():
        raise MissingFileError(f"folder {folder} does not exist; unpack the dataset there")
    with os.scandir(folder) as entries:
        times = {
            entry.name: _times(entry.stat())
            for entry in entries
            if not is_no_class(entry.name) and entry.is_dir()
        }
    return dict(sorted(times.items())) or {FLAT: _times(folder.stat())}


def _times(state: os.stat_result) -> list[int]:
    return [state.st_mtime_ns, state.st_ctime_ns]


def image_names(folder: Path, passed: PassedOver) -> list[str]:
    """Returns the names of the images in a class folder, sorted; notes what else there is.

    Raises:
        DataError: there are none.
    """
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image(entry, check_header):
                names.append(entry.name)
            elif not entry.name.startswith("."):
                passed.add("entries that are no images", f"{folder.name}/{entry.name}")
    names.sort()
    if not names:
        raise DataError(
            f"class folder {spelled(str(folder))} holds no images; add some or remove the folder"
        )
    return names


def _read_index(path: Path) -> dict[str, Any]:
    """Returns the entries of an index; empty if there is none, or it is not what we wrote."""
    if not path.is_file():
        return {}
    try:
        index = read_json(path)
        entries = index["folders"]
        total = sum(entry["count"] for entry in entries.values())
        fits = all(e["images"].count("/") + 1 == e["count"] for e in entries.values())
        if index["version"] != VERSION or total != index["count"] or not fits:
            raise DataError("its counts or its version are wrong")
        return entries
    except (DataError, KeyError, TypeError, AttributeError) as error:
        logger.warning(f"Note: {path} is not used ({error}); listing the folders anew")
        return {}
