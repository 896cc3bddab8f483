"""Which files below a folder are images, and what is passed over.

A file is an image if Pillow opens it, whatever its name. Links are followed, but each folder is
visited once, and none that leads back above the start.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from dassl.utils import DataError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from dassl.utils.text import composed, counted
from datasets.readers.image_checks import Check, ImageChecks, first_of, problem_of

logger = get_logger(__name__)

EXTENSIONS = (  # of files that are images for sure, in small letters; others may be, too
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif"),
    *(".tiff", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".pcx", ".sgi", ".tga"),
    *(".heic", ".heif", ".jxl"),  # Pillow alone does not read these: better refused than left out
)
SYSTEM_FOLDERS = (  # of file systems, network drives and archivers, in small letters
    *("@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
    *("$recycle.bin", "recycler", "__macosx", "__pycache__", "lost+found"),
    "system volume information",
)
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
OWN_FOLDERS = ("split_fewshot",)  # few-shot samples are kept there

Id = tuple[int, int]  # what two paths to one file, or folder, have in common


# Reasons of which there is one: they are kept in the plural, in what a split rests on, too.
_ONE = {
    "broken links": "broken link",
    "entries that are no images": "entry that is no image",
    "files that are no images": "file that is no image",
    "files that cannot be read": "file that cannot be read",
    "folders of runs": "folder of runs",
    "folders of this project": "folder of this project",
    "folders with images beside train and test": "folder with images beside train and test",
    "images outside of class folders": "image outside of class folders",
    "links that lead back": "link that leads back",
    "pipes and devices": "pipe or device",
    "second links to an image": "second link to an image",
    "system files": "system file",
    "system folders": "system folder",
}


@dataclass
class PassedOver:
    """Names of what was not taken for an image or a class, by reason."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        self.names.setdefault(reason, []).append(name)

    def say(self, place: object) -> None:
        """Logs one line with the counts; nothing if there are none."""
        if self.names:
            parts = [
                f"{counted(len(names), _ONE.get(reason, reason), reason)} ({listed(names)})"
                for reason, names in self.names.items()
            ]
            logger.warning(f"Note: passed over in {place}: {'; '.join(parts)}")

    def counts(self) -> dict[str, int]:
        return {reason: len(names) for reason, names in self.names.items()}


@dataclass
class Listing:
    """One folder: names of what it holds, sorted.

    Attributes:
        folders, images: to be used.
        damaged: images by their ending, that cannot be read, and why.
        runs: folders of a run's results.
        other: (reason, name) of the rest.
    """

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    other: list[tuple[str, str]] = field(default_factory=list)


class ImageTree:
    """All folders below `root`, listed once, with the headers of their files looked at.

    Args:
        root: where to start.
        checks: of the files that may be images.

    Raises:
        DataError: a folder cannot be read, or a name is no text.
    """

    def __init__(self, root: str, checks: ImageChecks) -> None:
        self.root = root
        self.passed = PassedOver()
        self._noted: set[Id] = set()
        self._above = _ids_above(root)
        self._listings: dict[Id, Listing] = {}
        places = self._walk(root)
        files = [os.path.join(path, name) for path, found in places for name in found.images]
        problems = iter(checks.problems(files))
        for _, listing in places:
            _sort_out(listing, problems)

    def folders(self, path: str) -> list[str]:
        """Returns the names of the folders in a folder."""
        return self._at(path).folders

    def images(self, path: str) -> list[str]:
        """Returns the names of the images that lie in a folder itself."""
        return self._at(path).images

    def below(self, path: str) -> list[str]:
        """Returns the paths of the images in a folder, at any depth, sorted; notes the others.

        Raises:
            DataError: some cannot be read.
        """
        found: list[str] = []
        damaged: list[str] = []
        for place, listing in self._visit(path):
            found += [os.path.join(place, name) for name in listing.images]
            damaged += listing.damaged.values()
            self.note(place)
        if damaged:
            raise DataError(f"{first_of(damaged)}. Fetch it anew, or take it out.")
        return sorted(found, key=lambda name: (composed(name).split(os.sep), name))

    def any_below(self, path: str) -> bool:
        """Whether there is an image, or something that should be one, in a folder at any depth."""
        return any(found.images or found.damaged for _, found in self._visit(path))

    def instead(self, path: str) -> str:
        """Returns what a folder without images holds, for a message; "" if it is empty."""
        others = [name for _, found in self._visit(path) for _, name in found.other]
        return f" ({counted(len(others), 'other file')}: {listed(others)})" if others else ""

    def only_runs(self, path: str) -> bool:
        """Whether a folder holds results of runs and no images."""
        return not self.any_below(path) and any(found.runs for _, found in self._visit(path))

    def note(self, path: str, files: bool = True) -> None:
        """Notes what is passed over in a folder itself, once."""
        key = _id(os.stat(path))
        if key in self._noted:
            return
        self._noted.add(key)
        listing = self._listings[key]
        for name in listing.runs:
            self.passed.add("folders of runs", self._short(path, name))
        for reason, name in listing.other:
            if files or reason not in (NO_IMAGE, HIDDEN):
                self.passed.add(reason, self._short(path, name))

    def _short(self, path: str, name: str) -> str:
        return os.path.relpath(os.path.join(path, name), self.root)

    def _at(self, path: str) -> Listing:
        return self._listings[_id(os.stat(path))]

    def _visit(self, path: str) -> Iterable[tuple[str, Listing]]:
        """Yields a folder and those below it, each once."""
        seen: set[Id] = set()
        stack = [path]
        while stack:
            place = stack.pop()
            key = _id(os.stat(place))
            if key not in seen:
                seen.add(key)
                yield place, self._listings[key]
                folders = self._listings[key].folders
                stack += [os.path.join(place, name) for name in reversed(folders)]

    def _walk(self, root: str) -> list[tuple[str, Listing]]:
        places: list[tuple[str, Listing]] = []
        stack = [root]
        while stack:
            path = stack.pop()
            key = _id(os.stat(path))
            if key not in self._listings:
                self._listings[key] = listing = self._list(path)
                places.append((path, listing))
                stack += [os.path.join(path, name) for name in reversed(listing.folders)]
        return places

    def _list(self, path: str) -> Listing:
        listing = Listing()
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: (composed(entry.name), entry.name))
        except OSError as error:
            raise DataError(f"folder {path} cannot be read: {error.strerror or error}") from None
        for entry in found:
            kind = self._kind(entry)
            if kind in ("folders", "images", "runs"):
                require_text(entry.path)
                getattr(listing, kind).append(entry.name)
            else:
                listing.other.append((kind, entry.name))
        return listing

    def _kind(self, entry: os.DirEntry) -> str:
        """Returns the list of a Listing that an entry belongs to, or why it is passed over."""
        name = entry.name.lower()
        try:
            state = entry.stat()
        except OSError:
            return "broken links" if entry.is_symlink() else "files that cannot be read"
        if stat.S_ISDIR(state.st_mode):
            if name.startswith("."):
                return HIDDEN
            if name in OWN_FOLDERS:
                return "folders of this project"
            if is_no_class(name):
                return "system folders"
            if entry.is_symlink() and _id(os.stat(entry.path)) in self._above:
                return "links that lead back"
            return "runs" if is_run(entry.path) else "folders"
        if name.startswith("."):
            return HIDDEN
        if name in SYSTEM_FILES:
            return "system files"
        return "images" if stat.S_ISREG(state.st_mode) else "pipes and devices"


NO_IMAGE, HIDDEN = "files that are no images", "hidden"


def is_no_class(folder: str) -> bool:
    """Whether a system, or this project, calls its own folders so."""
    name = folder.lower()
    return name.startswith(".") or name in SYSTEM_FOLDERS or name in OWN_FOLDERS


def is_image(entry: os.DirEntry, check: Check) -> bool:
    """Whether an entry of a folder is an image by its ending or, with any other, by its header."""
    name = entry.name.lower()
    if name.startswith(".") or name in SYSTEM_FILES or not entry.is_file():
        return False
    return name.endswith(EXTENSIONS) or not problem_of(entry.path, check)


def is_run(path: str) -> bool:
    """Whether a folder holds what a run of ours writes."""
    if os.path.isfile(os.path.join(path, "results.jsonl")):
        return True
    log = os.path.join(path, "log.txt")
    if not os.path.isfile(log):
        return False
    try:
        with open(log, "rb") as file:  # noqa: PTH123
            return b"** Arguments **" in file.read(512)
    except OSError:
        return False


def _sort_out(listing: Listing, problems: Iterator[str]) -> None:
    """Takes the files out of `listing.images` that are none; `problems` has one text a file."""
    found, listing.images = listing.images, []
    for name in found:
        problem = next(problems)
        if not problem:
            listing.images.append(name)
        elif name.lower().endswith(EXTENSIONS):
            listing.damaged[name] = problem
        else:
            listing.other.append((NO_IMAGE, name))


def require_text(path: str) -> None:
    """Raises DataError if a name on disk is no text: no log, list or prompt could hold it."""
    if not path.isascii() and any("\udc80" <= letter <= "\udcff" for letter in path):
        raise DataError(f"the name {path!a} is not valid UTF-8; rename it")


def _id(state: os.stat_result) -> Id:
    return state.st_dev, state.st_ino


def _ids_above(root: str) -> set[Id]:
    """Returns the folder itself and those that hold it, by its real path and by the given one."""
    ids = set()
    for path in chain((root, os.path.realpath(root))):
        while True:
            ids.add(_id(os.stat(path)))
            parent = os.path.dirname(path)
            if parent == path:
                break
            path = parent
    return ids
