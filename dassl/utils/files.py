"""Files and folders: listing, reading, and writing in a way that a kill cannot leave half done."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dassl.utils.errors import ConfigError, DataError, MissingFileError
from dassl.utils.logger import get_logger
from dassl.utils.text import spelled

logger = get_logger(__name__)

PathLike = str | os.PathLike


def mkdir_if_missing(dirname: PathLike) -> None:
    """Creates a folder and its parents unless it exists."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def user_cache_home() -> Path:
    """Returns the folder of this project in the user's cache; it need not exist."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "prompt-learning"


def require_replaceable(path: Path, suffixes: Collection[str]) -> None:
    """Raises ConfigError if a file of another kind would be replaced by what a command writes."""
    if path.exists() and path.suffix.lower() not in suffixes:
        raise ConfigError(
            f"--to {path}: a file of another kind is there; give a name that ends in "
            f"{' or '.join(suffixes)}"
        )


def file_state(path: PathLike) -> tuple[str, int, int, int]:
    """Returns what changes whenever the content of a file does; nobody can set the last of them.

    Raises:
        OSError: there is no such file.
    """
    stat = Path(path).stat()
    return str(Path(path).absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def content_digest(path: PathLike) -> str:
    """Returns a file's SHA-256 in hexadecimal; a process reads an unchanged file just once.

    Raises:
        OSError: there is no such file.
    """
    return _digest_of_state(file_state(path))


def git_blob_id(path: PathLike) -> str:
    """Returns the id that git gives a file's content: SHA-1 of "blob <bytes>\\0" and the content.

    Raises:
        OSError: there is no such file.
    """
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@lru_cache(maxsize=32)
def _digest_of_state(state: tuple[str, int, int, int]) -> str:
    digest = hashlib.sha256()
    with Path(state[0]).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def check_isfile(fpath: PathLike) -> bool:
    """Returns whether `fpath` is a file, and warns if it is not."""
    is_file = Path(fpath).is_file()
    if not is_file:
        logger.warning(f'Warning: no file found at "{fpath}"')
    return is_file


def listdir_nohidden(path: PathLike, sort: bool = True) -> list[str]:
    """Returns the names in a folder but for those that start with a dot.

    Sorted by default: the order a file system gives differs between machines, and a split drawn
    from it could not be reproduced.

    Raises:
        MissingFileError: there is no such folder.
    """
    if not Path(path).is_dir():
        raise MissingFileError(f"folder {path} does not exist")
    names = [entry.name for entry in Path(path).iterdir() if not entry.name.startswith(".")]
    return sorted(names) if sort else names


def read_json(fpath: PathLike) -> Any:
    """Reads a JSON file, gzipped if its name ends in .gz.

    Raises:
        MissingFileError: there is no such file.
        DataError: it does not hold JSON, or is damaged.
    """
    try:
        content = Path(fpath).read_bytes()
        content = gzip.decompress(content) if str(fpath).endswith(".gz") else content
        return parse_json(content.decode("utf-8-sig"))  # Windows puts a mark in front
    except FileNotFoundError:
        raise MissingFileError(f"file {fpath} does not exist") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{fpath} is damaged: {error}; delete it or fetch it anew") from None
    except ValueError as error:
        raise DataError(
            f"{fpath} is not valid JSON ({error}); delete it or fetch it anew"
        ) from None


def parse_json(text: str) -> Any:
    """Returns what a JSON text says.

    Raises:
        ValueError: it is none, nested without bound, has a number of thousands of digits, or one
            key twice: of two lists of test images, nobody means the second alone.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
    return found


def write_json(obj: Any, fpath: PathLike) -> None:
    """Writes `obj` as JSON, atomically; parent folders are created."""
    write_text(fpath, json.dumps(obj, indent=4, separators=(",", ": ")))


def write_text(fpath: PathLike, text: str) -> None:
    """Writes a text, atomically; parent folders are created."""
    write_atomically(fpath, lambda part: Path(part).write_text(text, encoding="utf-8"))


def write_atomically(fpath: PathLike, write: Callable[[str], Any]) -> None:
    """Calls `write(temporary_path)`, then moves the result to `fpath` in one step.

    A reader sees the old file or the new one, never a part, however the process ends.
    """
    target = Path(fpath)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    try:
        write(part)
        with Path(part).open("rb+") as file:
            os.fsync(file.fileno())
        Path(part).chmod(0o666 & ~_umask())  # mkstemp makes files private to the user
        os.replace(part, target)
    finally:
        Path(part).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def listed(items: Sequence[Any], at_most: int = 3) -> str:
    """Returns "a, b, c and 4 more" for error messages."""
    shown = ", ".join(spelled(str(item)) for item in items[:at_most])
    return shown if len(items) <= at_most else f"{shown} and {len(items) - at_most:,} more"
