"""What an interrupted training needs beside its checkpoint, to go on as if it had not stopped.

A checkpoint in the public format holds weights, optimizer and schedule. The state of the random
number generators, the best validation result and the like go to `progress-<epoch>.pt` in the
output folder; the file of the epoch before goes once the checkpoint is complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dassl.utils import load_checkpoint, write_atomically
from dassl.utils.files import PathLike
from dassl.utils.logger import get_logger
from dassl.utils.random_state import random_state, set_random_state

logger = get_logger(__name__)


def save_progress(folder: PathLike, epoch: int, state: dict[str, Any]) -> None:
    """Writes the state after `epoch` finished epochs; call it before the checkpoint is written."""
    content = {**state, "random": random_state(gpus=True)}
    write_atomically(_path(folder, epoch), lambda part: torch.save(content, part))


def forget_progress(folder: PathLike, keep: int | None = None) -> None:
    """Deletes the states of all epochs but `keep`."""
    for path in Path(folder).glob("progress-*.pt"):
        if keep is None or path != _path(folder, keep):
            path.unlink(missing_ok=True)


def restore_progress(folder: PathLike, epoch: int) -> dict[str, Any]:
    """Puts the generators back to where they were after `epoch` epochs; returns the rest.

    Empty if nothing was kept, as for checkpoints of other programs; the log says so.
    """
    path = _path(folder, epoch)
    if not path.is_file():
        logger.warning(
            f"Note: there is no {path}, so this run draws other numbers than one without a break"
        )
        return {}
    state = load_checkpoint(str(path))
    set_random_state(state.pop("random"))
    return state


def _path(folder: PathLike, epoch: int) -> Path:
    return Path(folder) / f"progress-{epoch}.pt"
