"""Reads what runs and sweeps have left, where any file may be damaged.

A file that does not exist is absent; one that cannot be what it should is damaged. Whoever finds a
damaged file says so once, by name, and goes on as if the run were not done.
"""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dassl.utils import DataError, write_atomically
from dassl.utils.logger import get_logger
from dassl.utils.results import record_in, record_lines

logger = get_logger(__name__)

MAX_BYTES = 2**28  # of a file; ImageNet's records of 200 epochs are a tenth of that
MAX_ENTRIES = 20_000  # of a config.yaml; YAML's aliases could make any number of few bytes

_said: set[Hashable] = set()


class DamagedFileError(DataError):
    """A file is there, but is not what it should be."""

    def __init__(self, path: Path, why: object) -> None:
        lines = str(why).strip().splitlines() or [type(why).__name__]
        super().__init__(f"{path} is damaged ({lines[0]})")


def say_once(text: str, key: Hashable = None) -> None:
    """Logs a note, unless one with the same key (the text, if there is none) was logged before."""
    key = text if key is None else key
    if key not in _said:
        _said.add(key)
        logger.warning(f"Note: {text}")


def content_of(path: Path) -> bytes | None:
    """Returns what a file holds; None: there is none.

    Raises:
        DamagedFileError: it is no file, is too large, or cannot be read.
        OSError: no file can have such a name.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DamagedFileError(path, "it is no file")
        if found.st_size > MAX_BYTES:
            raise DamagedFileError(path, f"it has {found.st_size:,} bytes")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        raise DamagedFileError(path, error.strerror or error) from None


def json_of(path: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file; None: there is no file; raises DamagedFileError."""
    content = content_of(path)
    if content is None:
        return None
    try:
        found = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, error) from None
    if not isinstance(found, dict):
        raise DamagedFileError(path, "it holds no object")
    return found


def yaml_of(path: Path) -> dict[str, Any] | None:
    """Returns the settings in a YAML file; None: there is no file; raises DamagedFileError.

    Leave what is returned as it is.
    """
    content = content_of(path)
    if content is None:
        return None
    try:
        return _settings(content)
    except Exception as error:  # YAML's constructors raise anything where bytes are arbitrary
        raise DamagedFileError(path, error) from None


@lru_cache(maxsize=4)  # one and the same file is asked for several things
def _settings(content: bytes) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one, where there is one
    found = yaml.load(content.decode(), Loader=loader)  # both are safe loaders
    if not isinstance(found, dict) or not _is_plain(found):
        raise ValueError("it holds no settings")
    return found


def _is_plain(tree: Any) -> bool:
    """Whether a tree has dictionaries by name, lists and plain values alone, and not too many."""
    waiting, left = [tree], MAX_ENTRIES
    while waiting:
        node, left = waiting.pop(), left - 1
        if isinstance(node, dict):
            if not all(isinstance(key, str) for key in node):
                return False
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
        elif node is not None and not isinstance(node, str | bool | int | float):
            return False
        if len(waiting) > left:
            return False
    return True


def records_in(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a results.jsonl; a line that holds none is passed over, and said.

    Raises:
        DamagedFileError: it is no file, or cannot be read.
    """
    found = [record_in(line) for line in _lines(path)]
    if None in found:
        say_once(f"{path} has an incomplete line, passed over")
    return [record for record in found if record]


def drop_broken_lines(path: Path) -> None:
    """Takes the lines that are no records out of a results.jsonl; raises DamagedFileError."""
    lines = _lines(path)
    whole = [line for line in lines if record_in(line)]
    if len(whole) < len(lines):
        content = b"".join(line + b"\n" for line in whole)
        write_atomically(path, lambda part: Path(part).write_bytes(content))


def _lines(path: Path) -> list[bytes]:
    return record_lines(content_of(path) or b"")
