"""One process at a time: lock files, which the system releases when their process dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dassl.utils.files import PathLike
from dassl.utils.logger import get_logger

logger = get_logger(__name__)


class LockedError(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def file_lock(path: PathLike, waiting: str = "") -> Iterator[None]:
    """Holds a lock file, which is created with its folder.

    Args:
        path: the lock file.
        waiting: said before waiting for another process; empty: there is no waiting.

    Raises:
        LockedError: another process holds it and `waiting` is empty.
        OSError, NotImplementedError: the folder cannot be written, or has no locks.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # A generator that holds it may be closed by another thread.
    lock = FileLock(path, mode=0o666, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not waiting:
            raise LockedError(f"another process holds {path}") from None
        logger.info(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_locked(path: PathLike) -> bool:
    """Returns whether a process holds a lock file."""
    if not Path(path).is_file():
        return False
    try:
        with file_lock(path):
            return False
    except LockedError:
        return True
