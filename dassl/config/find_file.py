"""Config files by their names: as they are typed, or below the repository's `configs/`."""

from __future__ import annotations

import difflib
from pathlib import Path

from dassl.utils.errors import MissingFileError

ROOT = Path(__file__).resolve().parents[2]
PLACES = (".", "configs", "configs/datasets", "configs/trainers")


def find_config(given: str) -> str:
    """Returns the file that a name stands for: "configs/datasets/digits.yaml", also "digits".

    Args:
        given: a path; one that leads nowhere from the working folder is looked for in the
            repository, with or without `.yaml`.

    Raises:
        MissingFileError: there is no such file; the message names the one called most alike.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return given
    for place in () if path.is_absolute() else PLACES:
        for name in (given, f"{given}.yaml"):
            if (found := ROOT / place / name).is_file():
                return str(found)
    raise MissingFileError(f"config file {given} does not exist.{_nearest(path)}".rstrip("."))


def _nearest(path: Path) -> str:
    """Returns " Did you mean configs/trainers/CoOp/tiny.yaml?", or "" if no name is near."""
    beside = [str(p) for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    ours = [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "configs").rglob("*.yaml"))]
    wanted = path.with_suffix(".yaml").as_posix()
    names = {short: name for name in (*ours, *beside) for short in _endings(name)}
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    return f" Did you mean {names[near[0]]}?" if near else ""


def _endings(name: str) -> list[str]:
    """Returns a path and what people leave out of it: "CoOp/tiny.yaml", "tiny.yaml"."""
    parts = name.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]
