"""What an interrupted training goes on from: one file that is replaced now and then.

`progress.pt` in the output folder holds everything that the rest of a training depends on: models,
optimizers, schedules, the state of the random number generators, the place within the epoch, the
best validation result. The file before it stays as `progress-before.pt`, for the case that the
newest is damaged. Both go when the training is done. Checkpoints in the public format are another
thing: TRAIN.CHECKPOINT_FREQ says which epochs are kept for good. Ours hold the state of the
generators and the like as one more entry, so training can go on from them as well, and repeats
there on a CPU to the bit.

A place within an epoch is the number of batches that were learned from. A resumed run puts the
generators to where they were at the epoch's start, draws the same batches again, leaves out those,
and puts the generators to where they were after them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dassl.utils import CheckpointError, MetricMeter, load_checkpoint
from dassl.utils.files import PathLike, write_text
from dassl.utils.logger import get_logger, log_files
from dassl.utils.random_state import set_random_state
from dassl.utils.results import read_records, record_line
from dassl.utils.sealed import save_sealed

logger = get_logger(__name__)

NEWEST, BEFORE = "progress.pt", "progress-before.pt"
TENSORBOARD = "tensorboard/events.out.tfevents.*"
_TRAINING_BEGINS = re.compile(
    rb"^(No checkpoint found, train from|Found checkpoint at|Note: .* holds no checkpoint yet)",
    re.MULTILINE,
)


class Place(NamedTuple):
    """Where a training is, with the states of the random number generators that go with it.

    Attributes:
        epoch: the epoch at work, from 0; also the number of finished ones.
        batch: batches of it that are done; None: it has not begun.
        random: the state at this place.
        epoch_random: the state when the epoch began, before its first batch was drawn.
        losses: the averages of the log so far, {name: [last, sum, count, average]}.
    """

    epoch: int
    batch: int | None
    random: dict[str, Any]
    epoch_random: dict[str, Any] | None = None
    losses: Mapping[str, list[float]] | None = None


def check_place(place: Place, max_epoch: int) -> None:
    """Raises some error if a place is none in a training of `max_epoch` epochs."""
    epoch, batch = place.epoch, place.batch
    if type(epoch) is not int or not 0 <= epoch <= max_epoch:
        raise ValueError(f"epoch {epoch!r} of {max_epoch}")
    set_random_state(place.random)
    if batch is None:
        return
    if type(batch) is not int or batch < 0:
        raise ValueError(f"batch {batch!r}")
    set_meters(MetricMeter(), place.losses or {})
    set_random_state(place.epoch_random)


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raises some error unless these are sizes of files."""
    if any(type(size) is not int or size < 0 for size in sizes.values()):
        raise ValueError(f"sizes of files {sizes!r}")


def save_progress(folder: PathLike, state: Mapping[str, Any]) -> None:
    """Writes the newest state; the one that was the newest becomes the one before."""
    newest, before = Path(folder) / NEWEST, Path(folder) / BEFORE
    if newest.is_file():
        os.replace(newest, before)
    save_sealed({**state, "files": file_sizes(folder)}, newest)


def read_progress(folder: PathLike) -> tuple[Path, dict[str, Any]] | None:
    """Returns the newest good file of a folder and its content; None: there is none.

    A damaged file is named in the log.
    """
    for name in (NEWEST, BEFORE):
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            return path, load_checkpoint(str(path))
        except CheckpointError as error:
            logger.warning(f"Note: {error}; the one before is used, if there is one")
    return None


def keep_as_newest(path: Path) -> None:
    """Puts the state that a run goes on from in the place of a damaged newer one, which would
    become the one before."""
    if path.name != NEWEST:
        os.replace(path, path.with_name(NEWEST))


def has_progress(folder: PathLike) -> bool:
    return any((Path(folder) / name).is_file() for name in (NEWEST, BEFORE))


def forget_progress(folder: PathLike) -> None:
    """Deletes the states: the training is done."""
    for name in (NEWEST, BEFORE):
        (Path(folder) / name).unlink(missing_ok=True)


# --- averages of the log --------------------------------------------------------------------------


def meters_state(meters: MetricMeter) -> dict[str, list[float]]:
    return {name: [m.val, m.sum, m.count, m.avg] for name, m in meters.meters.items()}


def set_meters(meters: MetricMeter, state: Mapping[str, list[float]]) -> None:
    for name, (val, total, count, avg) in state.items():
        meter = meters.meters[name]
        meter.val, meter.sum, meter.count, meter.avg = val, total, count, avg


# --- what the interrupted run wrote after the state was saved -------------------------------------


def file_sizes(folder: PathLike) -> dict[str, int]:
    """Returns the sizes of the files that grow during a training: {path in the folder: bytes}."""
    sys.stdout.flush()
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in _growing(root)}


def cut_to(folder: PathLike, sizes: Mapping[str, int], current_log: Path | None = None) -> None:
    """Takes what will come a second time out of logs and TensorBoard's files.

    Args:
        folder: output folder.
        sizes: what `file_sizes` returned when the state was saved.
        current_log: the log of the run at work, which stays as it is.
    """
    root = Path(folder)
    for path in list(_growing(root)):
        if current_log is not None and path.samefile(current_log):
            continue
        size = sizes.get(path.relative_to(root).as_posix())
        if size is None and path.parent != root:
            path.unlink()  # TensorBoard's file of an attempt that came to nothing
            continue
        if size is None:
            begins = _TRAINING_BEGINS.search(path.read_bytes())
            size = begins.start() if begins else path.stat().st_size
        if path.stat().st_size > size:
            os.truncate(path, size)


def drop_records(fpath: PathLike, digest: str, epoch: int) -> None:
    """Takes out the records that a run with this `config_digest` made after `epoch` epochs."""
    path = Path(fpath)
    if not path.is_file():
        return
    records = list(read_records(path))
    kept = [
        record
        for record in records
        if record.get("config_digest") != digest or (record.get("epoch") or 0) <= epoch
    ]
    if len(kept) < len(records):
        write_text(path, "".join(record_line(record) for record in kept))


def _growing(root: Path) -> Iterator[Path]:
    yield from log_files(root)
    yield from root.glob(TENSORBOARD)
