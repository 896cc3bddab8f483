"""Where each dataset comes from, how large it is, and what may be done with it: catalog.json."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dassl.utils import UnknownNameError, read_json
from dassl.utils.errors import not_one_of
from datasets.resources import CATALOG

Triple = tuple[int | None, int | None, int | None]  # train, val, test


@dataclass(frozen=True)
class Remote:
    """One file to fetch.

    Attributes:
        name: its name on disk; who fetches it by hand puts it under this name in the dataset's
            folder.
        urls: addresses of the same bytes, tried in order; gdrive:<id> is a file on Google Drive.
        places: (path in the archive, path below the dataset's folder) pairs; a first path that
            ends in * stands for everything in that folder. Empty: the file itself is wanted.
        wanted: paths below the dataset's folder that tell that this was done before; by default
            those of `places`.
        inner: path of an archive within the archive that holds the places.
        size: bytes; for planning, and checked where no checksum is known.
        sha256, md5: checksums in hexadecimal.
    """

    name: str
    urls: tuple[str, ...]
    places: tuple[tuple[str, str], ...] = ()
    wanted: tuple[str, ...] = ()
    inner: str = ""
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def results(self) -> tuple[str, ...]:
        return self.wanted or tuple(place for _, place in self.places) or (self.name,)


@dataclass(frozen=True)
class Source:
    """A complete way to get a dataset; `gone` says since when it no longer answers."""

    name: str
    files: tuple[Remote, ...]
    gone: str = ""

    @property
    def size(self) -> int | None:
        """Bytes to fetch; None: not known."""
        known = [file.size for file in self.files if file.size]
        return sum(known) if known else None


@dataclass(frozen=True)
class Entry:
    """One dataset.

    Attributes:
        name: as in DATASET_REGISTRY.
        classes: number of classes.
        sizes: images in train, val and test; None: there is no such list of its own.
        terms: licence or terms of use, in a few words.
        page: home page.
        sources: the first that is not gone is used unless another is asked for.
        elsewhere: other ways, for a person.
        needs: paths below the dataset's folder, beside the images, without which there is no
            official split.
        per_class: images of each class in train, val and test, where all classes have as many.
        ignored: folders that come with the images and are no classes.
        by_hand: instructions, where no program may fetch the data; {root} stands for --root.
    """

    name: str
    classes: int
    sizes: Triple
    terms: str
    page: str
    sources: tuple[Source, ...] = ()
    elsewhere: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    per_class: Triple = (None, None, None)
    ignored: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        return sum(size or 0 for size in self.sizes)

    def command(self, verb: str, root: Path) -> str:
        """Returns the command that downloads or verifies the dataset, as one types it."""
        return f"python -m datasets {verb} {self.name} --root {shlex.quote(str(root))}"

    def source(self, name: str = "") -> Source:
        """Returns the source called `name`; without a name, the first that is not gone.

        Raises:
            UnknownNameError: there is no such source.
        """
        for source in self.sources:
            if source.name == name or not (name or source.gone):
                return source
        names = [source.name for source in self.sources]
        raise UnknownNameError(not_one_of(f"--source of {self.name}", name, names or ["none"]))


@cache
def catalog() -> dict[str, Entry]:
    """Returns {name: entry}, in the order of the papers' tables; Digits comes last."""
    return {entry["name"]: _entry(entry) for entry in read_json(CATALOG)["datasets"]}


def entries(name: str) -> list[Entry]:
    """Returns the entry called `name`, in any case, or all entries for "all".

    Raises:
        UnknownNameError: there is no such dataset.
    """
    if name.lower() == "all":
        return list(catalog().values())
    by_lower = {known.lower(): entry for known, entry in catalog().items()}
    if name.lower() not in by_lower:
        raise UnknownNameError(not_one_of("the dataset", name, [*catalog(), "all"]))
    return [by_lower[name.lower()]]


def _entry(facts: dict[str, Any]) -> Entry:
    sources = [
        Source(
            source["name"],
            tuple(Remote(**_frozen(file)) for file in source["files"]),
            source.get("gone", ""),
        )
        for source in facts.get("sources", ())
    ]
    return Entry(**{**_frozen(facts), "sources": tuple(sources)})


def _frozen(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts with tuples for lists."""

    def freeze(value: Any) -> Any:
        return tuple(map(freeze, value)) if isinstance(value, list) else value

    return {key: freeze(value) for key, value in facts.items()}
