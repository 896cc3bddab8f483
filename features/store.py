"""Image features on disk: computed once, for all methods, seeds and processes that ask for them.

A frozen encoder gives the same feature for the same image whoever asks. Each row is filed under an
id of 16 bytes which says what it is the feature of; the folder it lies in, the *space*, says what
it was computed by (`features.keys` makes both). Whatever changes gives another id or
another space, so nothing here is ever out of date, only unused; what was unused for longest goes
first when the bound is reached.

    <folder>/<space>/<SHA-256 of the file>.npy     ids (N, 16) uint8, then features (N, E) float32

A file is written once, in one step, and never changed; its name is its checksum. Processes that
lack the same rows wait for each other; a kill gives the lock back and costs the last rows at most.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from dassl.utils.files import user_cache_home, write_atomically
from dassl.utils.locks import file_lock
from dassl.utils.logger import get_logger

logger = get_logger(__name__)

ID_BYTES = 16
ROWS_PER_FILE = 1024  # written as soon as there are so many
LOCKS = 64  # lock files of a space; lists of ids share them by chance
WAITING = "Waiting for another process, which encodes images that are wanted here as well"
ABANDONED = 24 * 3600  # seconds after which an unfinished file counts as left by a kill

Compute = Callable[[list[int]], Iterator[np.ndarray]]

_held: set[Path] = set()  # locks that this process has


def default_folder() -> Path:
    """Returns where features are kept unless the configuration says otherwise."""
    return user_cache_home() / "features"


def make_id(*parts: object) -> bytes:
    """Returns the id of what the parts, taken together, describe."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=ID_BYTES).digest()


class FeatureStore:
    """The features of one space.

    Args:
        folder: of all spaces.
        space: name of the space, safe in a path.
        max_bytes: bound of all spaces together.
    """

    def __init__(self, folder: Path, space: str, max_bytes: int) -> None:
        self.folder, self.space, self.max_bytes = folder, folder / space, max_bytes
        self._parts: dict[str, _Part | None] = {}  # file name → content; None: damaged
        self._index: dict[bytes, tuple[_Part, int]] = {}
        self._failed = False

    def stream(self, ids: list[bytes], compute: Compute, size: int) -> Iterator[np.ndarray]:
        """Yields features in the order of `ids`, `size` rows at a time, and keeps new ones.

        Args:
            ids: what is wanted; n rows.
            compute: called with the positions in `ids` of what is not there; yields their features
                in that order, any number of rows at a time. Not called if everything is there.
            size: rows of a result; the last may have fewer.
        """
        places = self._locate(ids)
        if None not in places:
            yield from _gather(places, iter(()), size)
            return
        with self._lock(ids):
            places = self._locate(ids)  # another process may have been at it
            missing = [i for i, place in enumerate(places) if place is None]
            logger.debug(f"{self.space} lacks features of {len(missing):,} of {len(ids):,} images")
            if not missing:
                yield from _gather(places, iter(()), size)
                return
            fresh = self._kept([ids[i] for i in missing], compute(missing))
            try:
                yield from _gather(places, fresh, size)
            finally:
                fresh.close()  # keeps what was computed, also if nobody wants the rest

    def _kept(self, ids: list[bytes], blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the rows of the blocks one by one and files them."""
        rows: list[np.ndarray] = []
        start = 0
        try:
            for block in blocks:
                block = np.asarray(block, np.float32)
                rows.extend(block)
                yield from block
                if len(rows) >= ROWS_PER_FILE:
                    self._write(ids[start : start + len(rows)], rows)
                    start, rows = start + len(rows), []
        finally:
            if rows:
                self._write(ids[start : start + len(rows)], rows)

    # --- files ------------------------------------------------------------------------------------

    def _locate(self, ids: list[bytes]) -> list[tuple[_Part, int] | None]:
        """Returns file and row of each id, or None; the files have the right checksum."""
        self._refresh()
        while True:
            places = [self._index.get(id_) for id_ in ids]
            used = {place[0] for place in places if place is not None}
            damaged = [part for part in used if not part.is_sound()]
            if not damaged:
                return places
            for part in damaged:
                self._drop(part)

    def _refresh(self) -> None:
        """Looks for files that came or went."""
        try:
            names = {path.name for path in self.space.glob("*.npy")}
        except OSError:
            names = set()
        for name in names - self._parts.keys():
            self._parts[name] = part = _open_part(self.space / name)
            if part is not None:
                for row, id_ in enumerate(part.ids):
                    self._index.setdefault(id_, (part, row))

    def _drop(self, part: _Part) -> None:
        if part.path.exists():  # else another process threw it out
            logger.warning(f"Note: {part.path} is damaged; what it held is computed again")
        self._parts[part.path.name] = None
        self._index = {id_: place for id_, place in self._index.items() if place[0] is not part}
        _unlink(part.path)

    def _write(self, ids: list[bytes], rows: list[np.ndarray]) -> None:
        if self._failed:
            return
        file = io.BytesIO()
        np.save(file, np.frombuffer(b"".join(ids), np.uint8).reshape(-1, ID_BYTES))
        np.save(file, np.stack(rows))
        content = file.getvalue()
        path = self.space / f"{hashlib.sha256(content).hexdigest()}.npy"
        try:
            write_atomically(path, lambda part: Path(part).write_bytes(content))
            evict(self.folder, self.max_bytes)
        except OSError as error:
            self._failed = True  # said once
            logger.warning(f"Note: features are not kept: {self.space}: {error.strerror or error}")

    @contextmanager
    def _lock(self, ids: list[bytes]) -> Iterator[None]:
        """Waits until no other process computes the same list."""
        number = int.from_bytes(make_id(ids), "big") % LOCKS
        path = self.space / f"lock-{number:02}"
        if path in _held:  # a pass that never ended
            yield
            return
        with ExitStack() as stack:
            # Without locks, or where nothing can be written, processes may compute rows twice.
            with suppress(OSError, NotImplementedError):
                stack.enter_context(file_lock(path, WAITING))
            _held.add(path)
            try:
                yield
            finally:
                _held.discard(path)


class _Part:
    """One file: ids, and features that stay on disk until they are read."""

    def __init__(self, path: Path, ids: list[bytes], features: np.memmap) -> None:
        self.path, self.ids, self.features = path, ids, features
        self._sound: bool | None = None

    def is_sound(self) -> bool:
        """Returns whether the checksum is right, and marks the file as used. Reads it once."""
        if self._sound is None:
            try:
                self._sound = hashlib.sha256(self.path.read_bytes()).hexdigest() == self.path.stem
            except OSError:  # thrown out by another process
                self._sound = False
            with suppress(OSError):  # not ours to touch
                os.utime(self.path)
        return self._sound


def _open_part(path: Path) -> _Part | None:
    try:
        if not path.is_file():  # a pipe would never end
            raise FileNotFoundError if not os.path.lexists(path) else ValueError("no file")
        with path.open("rb") as file:
            ids = np.lib.format.read_array(file, allow_pickle=False)
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        if len(shape) != 2 or ids.shape != (shape[0], ID_BYTES) or dtype != np.float32:
            raise ValueError("other arrays than expected")
        features = np.memmap(path, dtype, "r", offset, shape)
    except Exception as error:  # a damaged header can fail in any way: memory, syntax, tokens
        if not isinstance(error, FileNotFoundError):
            logger.warning(f"Note: {path} is damaged; what it held is computed again")
            _unlink(path)
        return None
    return _Part(path, [row.tobytes() for row in ids], features)


def _gather(
    places: list[tuple[_Part, int] | None], fresh: Iterator[np.ndarray], size: int
) -> Iterator[np.ndarray]:
    for start in range(0, len(places), size):
        rows = [
            next(fresh) if place is None else place[0].features[place[1]]
            for place in places[start : start + size]
        ]
        yield np.stack(rows)  # (size, E)


# --- housekeeping ---------------------------------------------------------------------------------


def stored_files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Returns all files with features, those unused for longest first."""
    found = []
    for path in folder.glob("*/*.npy"):
        with suppress(OSError):  # another process threw it out
            found.append((path, path.stat()))
    return sorted(found, key=lambda entry: entry[1].st_mtime_ns)


def evict(folder: Path, max_bytes: int) -> None:
    """Deletes the files unused for longest until `max_bytes` are kept; and what kills left."""
    files = stored_files(folder)
    total = sum(stat.st_size for _, stat in files)
    for path, stat in files:
        if total <= max_bytes:
            break
        _unlink(path)
        total -= stat.st_size
    for path in folder.glob("*/.*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                _unlink(path)


def clear(folder: Path) -> tuple[int, int]:
    """Deletes everything; returns how many files and bytes that were."""
    files = stored_files(folder)
    for path in [path for path, _ in files] + list(folder.glob("*/.*.part")):
        _unlink(path)
    return len(files), sum(stat.st_size for _, stat in files)


def _unlink(path: Path) -> None:
    with suppress(OSError):  # in use, on systems that mind, or not ours
        path.unlink(missing_ok=True)
