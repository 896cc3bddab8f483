"""The numbers of a training, epoch by epoch, from the TensorBoard files in its folder."""

from __future__ import annotations

from pathlib import Path

from dassl.engine.progress import TENSORBOARD
from dassl.utils.logger import get_logger

logger = get_logger(__name__)

POINTS = 200  # at most, of a curve

Curve = list[tuple[float, float]]


def read_curves(folder: Path, epochs: int) -> dict[str, Curve]:
    """Returns "loss", "acc" or what else a trainer wrote → (epoch, mean over its steps).

    Args:
        folder: of the run.
        epochs: that it trained; the steps are shared out evenly.
    """
    steps = _steps(folder)
    return {
        tag.removeprefix("train/"): _by_epoch(values, epochs)
        for tag, values in steps.items()
        if tag.startswith("train/") and values
    }


def _steps(folder: Path) -> dict[str, dict[int, float]]:
    """Returns tag → step → value. Of a step that a resumed training did again, the last counts."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob(TENSORBOARD), key=lambda path: path.name):
        try:
            for event in EventFileLoader(str(path)).Load():
                for value in event.summary.value:
                    if numbers := list(value.tensor.float_val) or [value.simple_value]:
                        found.setdefault(value.tag, {})[event.step] = numbers[0]
        except Exception as error:  # what a damaged file of that format raises
            logger.warning(f"Note: the rest of {path} cannot be read: {error!r:.100}")
    return found


def _by_epoch(values: dict[int, float], epochs: int) -> Curve:
    steps = max(values) + 1
    parts = max(1, min(epochs, steps, POINTS))
    held: dict[int, list[float]] = {}
    for step, value in sorted(values.items()):
        held.setdefault(step * parts // steps, []).append(value)
    return [((part + 1) * epochs / parts, sum(some) / len(some)) for part, some in held.items()]
