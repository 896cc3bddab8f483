"""The checkpoints in a run's folder: whether they are whole, and which may go."""

from __future__ import annotations

from pathlib import Path

from dassl.engine import identity
from dassl.utils import CheckpointError, load_checkpoint
from dassl.utils.checkpoint import POINTER_FILE
from sweep.plan.run import Run, flat
from sweep.work.basis import differing
from sweep.work.kept import DamagedFileError, content_of

PREFIX, BEST = "model.pth.tar-", "model-best.pth.tar"
PATTERNS = (f"*/{POINTER_FILE}", f"*/{PREFIX}*", f"*/{BEST}", "progress*.pt")
STATES = ("progress.pt", "progress-before.pt")  # all that a training needs, in one file


def are_in(folder: Path) -> bool:
    """Returns whether a training left anything to go on from."""
    return any(True for pattern in PATTERNS for _ in folder.glob(pattern))


def resume_problem(folder: Path, epochs: int) -> str | None:
    """Returns why a training cannot go on to the very numbers of one without a break; None: it can.

    Args:
        folder: of the run.
        epochs: that it trains.
    """
    if any((folder / name).exists() and not damage(folder / name) for name in STATES):
        return None
    models = {path.parent for path in folder.glob(f"*/{PREFIX}*")}
    if not models:
        return f"there is no whole {STATES[0]}"
    for place in sorted(models):
        try:
            name = (content_of(place / POINTER_FILE) or b"").decode().strip()
        except (DamagedFileError, UnicodeDecodeError):
            name = ""
        epoch = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or not epoch.isdecimal() or len(epoch) > 9:
            return f"{place / POINTER_FILE} names no checkpoint"
        if int(epoch) < epochs:  # after the last one nothing is drawn any more
            return f"there is no whole {STATES[0]}"
        if problem := damage(place / name):
            return problem
    return None


def problem(folder: Path, run: Run, epoch: int) -> str:
    """Returns what is wrong with the checkpoint that is to be evaluated; "" if nothing is.

    Args:
        folder: of the training.
        run: the training.
        epoch: of the checkpoint; 0: the best.
    """
    needed = epoch in (0, run.epoch_tested)  # others are kept only if asked for
    places = sorted({path.parent for path in folder.glob("*/model*.pth.tar*")})
    if not places:
        return f"{folder} holds no checkpoint"
    for place in places:
        path = place / (f"{PREFIX}{epoch}" if epoch else BEST)
        if (needed or path.exists()) and (wrong := damage(path) or _of_another(path, run, epoch)):
            return wrong
    return ""


def _of_another(path: Path, run: Run, epoch: int) -> str:
    """Returns why a whole checkpoint is not the one of an epoch of a run, as far as it says."""
    content = load_checkpoint(str(path))
    if epoch and content.get("epoch") != epoch:
        return f"{path} holds the weights after epoch {content.get('epoch')}"
    made_by = content.get(identity.KEY)
    then = made_by.get("settings") if isinstance(made_by, dict) else None
    now = {**flat(run.settings), "SEED": run.seed}
    changed = differing(then, now) if isinstance(then, dict) else []
    if changed:
        return f"{path} is of another run: {changed[0]} was {then[changed[0]]!r}"
    return ""


def damage(path: Path) -> str:
    """Returns what is wrong with a file of `torch.save`; "" if it is whole."""
    if not path.exists():
        return f"{path} is missing"
    if not path.is_file():
        return f"{path} is no file"
    try:
        content = load_checkpoint(str(path))
    except CheckpointError as error:
        return str(error)
    except Exception as error:  # torch's readers raise anything where bytes are arbitrary
        return f"{path} is damaged: {error!r}"
    return "" if isinstance(content, dict) else f"{path} holds no state"


def delete_intermediate(folder: Path, epochs: int) -> None:
    """Deletes the checkpoints that were only there to resume from."""
    for path in folder.glob("progress-*.pt"):
        path.unlink(missing_ok=True)
    for path in folder.glob(f"*/{PREFIX}*"):
        if path.name != f"{PREFIX}{epochs}":
            path.unlink(missing_ok=True)
