"""Where each dataset comes from, how large it is, and what may be done with it: catalog.json."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dassl.command import command
from dassl.data.datasets import DATASET_REGISTRY
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
        urls: addresses of the same bytes, tried in order; gdrive:<id> is a file on Google Drive,
            <address>#<name> a file within a zip archive, fetched by ranges.
        places: (path in the archive, path below the dataset's folder) pairs; a first path that
            ends in * stands for everything in that folder, ** for everything in the folder that
            holds `wanted`, wherever that is. Empty: the file itself is wanted.
        wanted: paths below the dataset's folder that tell that this was done before; by default
            those of `places`.
        inner: path of an archive within the archive that holds the places.
        size: bytes; for planning, and checked unless it comes from elsewhere than the MD5 sum.
        sha256, md5: checksums in hexadecimal.
        git_blob: id of the content as a blob of git.
    """

    name: str
    urls: tuple[str, ...]
    places: tuple[tuple[str, str], ...] = ()
    wanted: tuple[str, ...] = ()
    inner: str = ""
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    git_blob: str | None = None

    @property
    def results(self) -> tuple[str, ...]:
        return self.wanted or tuple(place for _, place in self.places) or (self.name,)

    @property
    def checks(self) -> dict[str, Any]:
        """What `check_file` is to check; a size that came with an MD5 sum is of another source."""
        size = None if self.md5 else self.size
        sums = {"sha256": self.sha256, "md5": self.md5, "git_blob": self.git_blob}
        return {**sums, "size": size}


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
        sources: tried in this order, but for those that are gone, unless one is asked for.
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
        return f"{command('datasets')} {verb} {self.name} --root {shlex.quote(str(root))}"

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
    content = read_json(CATALOG)
    return {facts["name"]: _entry(facts, content["hub"]) for facts in content["datasets"]}


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


def _entry(facts: dict[str, Any], hub: list[str]) -> Entry:
    sources = [
        Source(
            source["name"],
            tuple(_remote(facts["name"], file, hub) for file in source["files"]),
            source.get("gone", ""),
        )
        for source in facts.get("sources", ())
    ]
    return Entry(**{**_frozen(facts), "sources": tuple(sources)})


def _remote(name: str, facts: dict[str, Any], hub: list[str]) -> Remote:
    """Returns a file of dataset `name`, with full addresses where the catalog says hub:<file>."""
    urls: list[str] = []
    for url in facts["urls"]:
        urls += [f"{base}/{url[4:]}" for base in hub] if url.startswith("hub:") else [url]
    dataset = DATASET_REGISTRY.get(name)
    blob = dataset.split_blob if facts["name"] == dataset.split_file else ""
    return Remote(**_frozen({**facts, "urls": urls}), git_blob=blob or None)


def _frozen(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts with tuples for lists."""

    def freeze(value: Any) -> Any:
        return tuple(map(freeze, value)) if isinstance(value, list) else value

    return {key: freeze(value) for key, value in facts.items()}
