"""Which sources of a dataset are tried, in which order; and the same files at one's own mirror."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import ConfigError, MissingFileError
from datasets.manage.catalog import Entry, Remote, Source


def folder_of(entry: Entry, root: Path) -> Path:
    """Returns where a dataset is, in whatever known layout, or where it is put."""
    folder = root / DATASET_REGISTRY.get(entry.name).dataset_dir
    return (
        DATASET_REGISTRY.get(entry.name).locate(root)[0]
        if _images_elsewhere(entry, root)
        else folder
    )


def _images_elsewhere(entry: Entry, root: Path) -> bool:
    """Whether the images lie as torchvision, say, puts them, and not as upstream has them."""
    cls = DATASET_REGISTRY.get(entry.name)
    upstream = root.expanduser().absolute() / cls.dataset_dir / cls.image_dir
    return cls.locate(root)[1] != upstream


def sources_to_try(entry: Entry, name: str, mirror: str, root: Path) -> list[Source]:
    """Returns the sources of a dataset in the order in which to try them.

    Those whose archives somebody put into the folder come first, then the catalog's order: the
    authors' address, then copies. Those that are gone are left out: nothing answers there.

    Args:
        entry: which dataset.
        name: of the one source to try; empty: all.
        mirror: address or folder that has the files under their names, or in folders called as
            the datasets' are; then it alone is asked, for gone sources as well. Empty: none.
        root: folder that holds all datasets. Where the images lie in another layout, such as
            torchvision's, lists and splits alone are fetched.

    Raises:
        UnknownNameError: there is no source called `name`.
        ConfigError, MissingFileError: `mirror` is neither an address nor a folder.
    """
    if name:
        sources = [entry.source(name)]
    else:
        sources = [source for source in entry.sources if mirror or not source.gone]
    folder = folder_of(entry, root)
    if _images_elsewhere(entry, root):
        lists = [tuple(file for file in source.files if not file.places) for source in sources]
        sources = [dataclasses.replace(s, files=files) for s, files in zip(sources, lists)]
    sources.sort(key=lambda source: not _came_by_hand(source, folder))
    return [_at(mirror, source, folder) for source in sources] if mirror else sources


def _came_by_hand(source: Source, folder: Path) -> bool:
    archives = [file for file in source.files if file.places]
    return bool(archives) and all(file_there(file, folder) for file in archives)


def file_there(file: Remote, folder: Path) -> Path | None:
    """Returns where a file lies in the dataset's folder, if somebody put it there."""
    names = (file.name, plain_name(file)) if file.places else (file.name,)
    return next((folder / name for name in names if (folder / name).exists()), None)


def plain_name(file: Remote) -> str:
    """Returns what a file is called at its source; `name` tells two files of one name apart."""
    return file.name.removeprefix("mirror-")


def _at(mirror: str, source: Source, folder: Path) -> Source:
    base = _base(mirror)
    files = [
        dataclasses.replace(file, urls=_addresses(base, file, folder.name)) for file in source.files
    ]
    return dataclasses.replace(source, files=tuple(files))


def _addresses(base: str | Path, file: Remote, folder: str) -> tuple[str, ...]:
    name = plain_name(file)
    if isinstance(base, str):
        return tuple(f"{base}/{quote(place)}" for place in (name, f"{folder}/{name}"))
    places = [base / name, base / folder / name]
    return tuple(place.as_uri() for place in places if place.is_file()) or (places[0].as_uri(),)


def _base(mirror: str) -> str | Path:
    """Returns the address without a slash at its end, or the folder's full path."""
    if re.match(r"https?://", mirror, re.IGNORECASE):
        parts = urlsplit(mirror)
        if "@" in parts.netloc or parts.query or parts.fragment or not parts.netloc:
            raise ConfigError(
                "--mirror is an address with a user name, a query or no host; it is to be like "
                "https://host/folder, and what needs a login is to be fetched into a folder first"
            )
        return mirror.rstrip("/")
    folder = Path(mirror).expanduser().absolute()
    if not folder.is_dir():
        raise MissingFileError(
            f"--mirror is {mirror!r}; expected a folder that exists, or an address such as "
            "https://host/folder"
        )
    return folder
