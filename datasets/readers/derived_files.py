"""Files that we derive from a dataset: beside it, or in the user's cache where it is read-only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from dassl.utils import write_json
from dassl.utils.files import PathLike, user_cache_home
from dassl.utils.logger import get_logger

logger = get_logger(__name__)


def user_cache(dataset_dir: PathLike) -> Path:
    """Returns the folder for one dataset in the user's cache, keyed by where the dataset lies."""
    path = Path(dataset_dir).absolute()
    key = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    return user_cache_home() / f"{path.name}-{key}"


def derived_paths(dataset_dir: PathLike, name: str) -> tuple[Path, Path]:
    """Returns where the derived file `name` may lie, in the order in which to look."""
    return Path(dataset_dir) / name, user_cache(dataset_dir) / name


def save_derived(content: Any, dataset_dir: PathLike, name: str) -> Path | None:
    """Writes a derived file and returns where it went; None, with a note, if it went nowhere."""
    beside, cached = derived_paths(dataset_dir, name)
    try:
        write_json(content, beside)
        return beside
    except OSError as error:
        reason = f"{beside.parent} cannot be written ({error.strerror or error})"
    try:
        write_json(content, cached)
    except OSError:
        logger.warning(f"Note: {name} is not kept: {reason}, and neither can {cached.parent}")
        return None
    logger.warning(f"Note: {reason}; {name} is kept in {cached.parent}")
    return cached
