"""The folder that holds all datasets, DATASET.ROOT: one that is mistyped is never created."""

from __future__ import annotations

import shlex
from pathlib import Path

from dassl.command import command
from dassl.utils import MissingFileError, read_json
from dassl.utils.errors import closest
from datasets.resources import CATALOG

DEFAULT = "data"  # what the documentation calls it: this name alone may be created


def require_root(root: Path) -> None:
    """Raises MissingFileError, with the folder that is called most alike, unless `root` is one."""
    if root.is_dir():
        return
    what = "is no folder" if root.exists() else "does not exist"
    there = next(folder for folder in root.parents if folder.is_dir())
    wanted = root.relative_to(there).parts[0]
    near = closest(wanted, [path.name for path in there.iterdir() if path.is_dir()])
    raise MissingFileError(
        f"--root (DATASET.ROOT) is {root}, which {what}; it must name the folder that holds the "
        f"datasets.{near} To make a new one:\n  mkdir -p {shlex.quote(str(root))}"
    )


def make_default_root(root: Path) -> None:
    """Creates a folder `data` where there is none yet, for data that need no download."""
    if root.name == DEFAULT and root.parent.is_dir() and not root.exists():
        root.mkdir(exist_ok=True)


def download_command(name: str, root: Path) -> str:
    """Returns the command that fetches a dataset; "" if the project does not know from where."""
    known = {entry["name"] for entry in read_json(CATALOG)["datasets"]}
    where = shlex.quote(str(root))
    return f"{command('datasets')} download {name} --root {where}" if name in known else ""
