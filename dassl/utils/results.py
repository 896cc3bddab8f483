"""One line of JSON per evaluation: what was run, on what, and what came out, unrounded."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from yacs.config import CfgNode

from dassl.utils.files import PathLike

# Settings that say where files lie or how a run is carried out, not what is computed.
_NOT_IN_DIGEST = ("OUTPUT_DIR", "RESUME", "VERBOSE", "USE_CUDA")


def append_record(fpath: PathLike, record: dict[str, Any]) -> None:
    """Adds one record to a JSON-lines file, in a single write that reaches the disk."""
    path = Path(fpath)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, allow_nan=True) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_records(fpath: PathLike) -> Iterator[dict[str, Any]]:
    """Yields the records of a file; a line that a kill cut short is passed over."""
    for line in Path(fpath).read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            print(f"Note: {fpath} has an incomplete line, passed over")


def config_digest(cfg: CfgNode) -> str:
    """Returns SHA-256 over the settings that determine a result; equal digests may be averaged."""
    tree = json.loads(json.dumps(cfg))
    for key in _NOT_IN_DIGEST:
        tree.pop(key, None)
    tree["DATASET"].pop("ROOT")
    for key in ("NUM_WORKERS", "CACHE_MB"):
        tree["DATALOADER"].pop(key)
    tree["MODEL"].pop("FEATURES", None)  # where image features are kept, see trainers
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


@cache
def versions() -> dict[str, str | None]:
    """Returns the versions behind a number: Python, torch, torchvision, and this code's commit."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "commit": _commit(),
    }


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None  # an unpacked archive has no history
    return result.stdout.strip()
