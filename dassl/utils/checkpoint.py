"""Saving, loading and resuming checkpoints; nothing in a file that was handed to us is executed."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dassl.utils.errors import CheckpointError, MissingFileError
from dassl.utils.files import PathLike, listed, write_text
from dassl.utils.logger import get_logger
from dassl.utils.safe_pickle import InertUnpickler
from dassl.utils.sealed import check_seal, read_member, save_sealed

logger = get_logger(__name__)

LEGACY_MARK = 0x1950A86A20F9469CFC6C  # the first pickle in a file that is no zip file
MAX_UNPACKED = 64 << 20  # bytes that a file may grow by; torch compresses no tensors
MAX_VALUES = 5_000_000  # numbers and texts beside the tensors; a run has some thousand
POINTER_FILE = "checkpoint"  # names the file written last
BEST_FILE = "model-best.pth.tar"


class _InertObject:
    """Takes the place of a pickled object: keeps its attributes, runs none of its code."""

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


def _plain_dict(*_: object) -> dict:
    """Takes the place of `collections.defaultdict`."""
    return {}


# Checkpoints of the public implementation carry the scheduler after the warm-up as a pickled
# object, which holds its optimizer. `weights_only` refuses both; these stand-ins do nothing.
_SCHEDULERS = ("CosineAnnealingLR", "StepLR", "MultiStepLR")
_OPTIMIZERS = ("sgd.SGD", "adam.Adam", "adamw.AdamW", "radam.RAdam", "rmsprop.RMSprop")
_HARMLESS = (
    *((_InertObject, f"torch.optim.lr_scheduler.{name}") for name in _SCHEDULERS),
    *((_InertObject, f"torch.optim.{name}") for name in _OPTIMIZERS),
    (_plain_dict, "collections.defaultdict"),
    (dict, "builtins.dict"),
    (dict, "__builtin__.dict"),  # the same in pickle protocol 2
)


def save_checkpoint(
    state: dict[str, Any],
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Writes `state` to `<save_dir>/model.pth.tar-<epoch>` and points `checkpoint` at it.

    Args:
        state: needs "state_dict" and "epoch" (number of finished epochs); by habit also
            "optimizer", "scheduler" and "val_result".
        save_dir: folder, created if missing.
        is_best: write a second copy as `model-best.pth.tar`.
        remove_module_from_keys: drop the "module." that DataParallel puts before names.
        model_name: another file name.
    """
    folder = Path(save_dir)
    if remove_module_from_keys:
        state = {**state, "state_dict": _without_module(state["state_dict"])}
    name = model_name or f"model.pth.tar-{state['epoch']}"
    save_sealed(state, folder / name)
    logger.info(f"Checkpoint saved to {folder / name}")
    write_text(folder / POINTER_FILE, f"{name}\n")
    if is_best:
        save_sealed(state, folder / BEST_FILE)
        logger.info(f'Best checkpoint saved to "{folder / BEST_FILE}"')


def load_checkpoint(fpath: str) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU with `weights_only=True`.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is damaged, or holds objects other than tensors and plain data.
    """
    if fpath is None:
        raise ValueError("the checkpoint's path is None")
    if not Path(fpath).is_file():
        raise MissingFileError(f'Model not found at "{fpath}"')
    check_seal(fpath)
    try:
        require_readable(Path(fpath))
        with torch.serialization.safe_globals(list(_HARMLESS)):
            content = torch.load(fpath, map_location="cpu", weights_only=True)
        _require_bounded(content)
        return content
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        reason = re.search(
            r"Unsupported \S+: (GLOBAL )?\S+|(?<=WeightsUnpickler error: ).+", str(error)
        )
        raise CheckpointError(
            f"{fpath} holds more than tensors and plain data, so it is not opened: loading it "
            f"could run code. ({reason.group() if reason else str(error).splitlines()[0]})"
        ) from None
    except Exception as error:  # torch's readers raise anything where bytes are arbitrary
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{fpath} is damaged or no checkpoint: {reason}") from None


def require_readable(path: Path) -> None:
    """Raises for a file that would fill memory or end the process while torch reads it.

    `weights_only` runs no code, but it hashes any key, and unpacks whatever a zip file holds.

    Raises:
        ValueError, or another error of PICKLE_DAMAGE: torch must not read it.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            _require_pickle(path, file.read(100))
            file.seek(0)
            first = InertUnpickler(file).load()
            for _ in range(3 if first == LEGACY_MARK else 0):  # version, system, content
                InertUnpickler(file).load()
        return
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > size + MAX_UNPACKED:
            raise ValueError(f"its {size:,} bytes would become many more")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                InertUnpickler(io.BytesIO(read_member(archive, name))).load()


def _require_bounded(content: Any) -> None:
    """Raises ValueError for lists that hold each other: whoever goes through them never ends."""
    left, stack = MAX_VALUES, [content]
    while stack:
        value = stack.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"its lists hold each other more than {MAX_VALUES:,} times over")
        if isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, (list, tuple, set)):
            stack += value


def _require_pickle(path: Path, head: bytes) -> None:
    """Raises CheckpointError for a file that begins like no pickle of the last twenty years."""
    if head.startswith(b"\x80"):
        return
    what = "another kind of file" if head else "empty"
    if head.startswith(b"version https://git-lfs"):
        what = "a pointer of Git LFS; 'git lfs pull' fetches the file itself"
    elif head.lstrip().startswith(b"<"):
        what = "a web page, so its download failed; fetch it anew"
    elif head[8:9] == b"{":
        what = "a safetensors file; read it with that package and keep it with torch.save"
    raise CheckpointError(f"{path} is damaged or no checkpoint: it is {what}")


def resume_from_checkpoint(
    fdir: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
) -> int:
    """Restores model, optimizer and scheduler from the newest checkpoint (`newest_checkpoint`).

    Returns:
        The number of epochs finished.

    Raises:
        MissingFileError: there is no checkpoint.
        CheckpointError: all are damaged, or the newest good one does not fit the model.
    """
    fpath, checkpoint = newest_checkpoint(fdir)
    logger.info(f'Loading checkpoint from "{fpath}"')
    restore_checkpoint(checkpoint, fpath, model, optimizer, scheduler)
    logger.info(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def newest_checkpoint(fdir: PathLike) -> tuple[Path, dict[str, Any]]:
    """Returns the file that `<fdir>/checkpoint` names, and its content.

    If the pointer is missing or wrong, or what it names is damaged, the newest good file of an
    epoch takes its place, and a note says so.

    Raises:
        MissingFileError: there is no checkpoint.
        CheckpointError: all are damaged.
    """
    folder = Path(fdir)
    by_epoch = [folder / f"model.pth.tar-{epoch}" for epoch in reversed(saved_epochs(folder))]
    named = _named_by_pointer(folder)
    if named is None and not by_epoch:
        raise MissingFileError(f"there is no run to resume in {folder}: it holds no checkpoint")
    errors = []
    for path in dict.fromkeys([*([named] if named else []), *by_epoch]):
        try:
            checkpoint = load_checkpoint(str(path))
            check_form(checkpoint, path)
            return path, checkpoint
        except (CheckpointError, MissingFileError) as error:
            errors.append(str(error))
            logger.warning(f"Note: {error}; the one before is used")
    raise CheckpointError("no checkpoint can be read: " + "; ".join(errors))


def check_form(checkpoint: Any, fpath: PathLike) -> None:
    """Raises CheckpointError unless there are a state dict and a number of epochs."""
    content = checkpoint if isinstance(checkpoint, dict) else {}
    if not isinstance(content.get("state_dict"), dict) or type(content.get("epoch")) is not int:
        raise CheckpointError(f"{fpath} is no checkpoint: it lacks state_dict or epoch")


def saved_epochs(folder: Path) -> list[int]:
    """Returns the epochs of which a folder holds `model.pth.tar-<epoch>`, in ascending order."""
    ends = [path.name.rpartition("-")[2] for path in folder.glob("model.pth.tar-*")]
    return sorted(int(end) for end in ends if end.isdecimal())


def _named_by_pointer(folder: Path) -> Path | None:
    pointer = folder / POINTER_FILE
    try:
        name = Path(pointer.read_bytes().decode().strip()).name
    except (OSError, ValueError) as error:
        logger.warning(f"Note: {pointer} cannot be read ({error}); the newest file is used")
        return None
    if not name or "\0" in name or not (folder / name).is_file():
        logger.warning(f"Note: {pointer} names {name!r}, which is not there; the newest is used")
        return None
    return folder / name


def restore_checkpoint(
    checkpoint: Mapping[str, Any],
    fpath: PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
) -> None:
    """Puts model, optimizer and schedule back to what a checkpoint holds.

    Raises:
        CheckpointError: it does not fit, or holds no finite numbers; the message names `fpath`.
    """
    try:
        check_finite(checkpoint["state_dict"], fpath, model.state_dict())
        model.load_state_dict(checkpoint["state_dict"])
        logger.info("Loaded model weights")
        if optimizer is not None and checkpoint.get("optimizer") is not None:
            optimizer.load_state_dict(checkpoint["optimizer"])
            logger.info("Loaded optimizer")
        if scheduler is not None and checkpoint.get("scheduler") is not None:
            scheduler.load_state_dict(checkpoint["scheduler"])
            logger.info("Loaded scheduler")
    except CheckpointError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{fpath} does not fit this run: {error}") from None


def check_finite(
    state_dict: Mapping[str, Any], fpath: PathLike, own: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Raises CheckpointError, with the name of the tensor, unless weights are finite numbers.

    Args:
        state_dict: of the file; entries that are no tensors are passed over, if the model has none
            of that name.
        fpath: the file.
        own: the model's tensors; whole or complex numbers are none of its learned ones.
    """
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            if own and isinstance(own.get(name), torch.Tensor):
                raise CheckpointError(
                    f"{fpath} holds {name} as a {type(value).__name__}; expected a tensor"
                )
            continue
        if not is_plain(value):
            raise CheckpointError(f"{fpath} holds {name} as a tensor without plain numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            # Computing with it would take memory for numbers that the file does not have.
            raise CheckpointError(
                f"{fpath} holds {name} as {tuple(value.shape)} of fewer numbers, repeated; save a "
                "contiguous tensor"
            )
        if not value.is_floating_point():
            if own and name in own and own[name].is_floating_point():
                kind = str(value.dtype).removeprefix("torch.")
                raise CheckpointError(f"{fpath} holds {name} as {kind}; expected floating point")
            continue
        single = value.float()  # what we compute with: large float64 numbers become infinite
        if not single.isfinite().all():
            what = "NaN" if single.isnan().any() else "infinite numbers"
            raise CheckpointError(
                f"{fpath} holds {what} in {name}: a training that failed wrote it, or it was "
                "damaged before it was saved. Use an earlier file."
            )


def is_plain(tensor: torch.Tensor) -> bool:
    """Returns whether a tensor holds its numbers as they are: not sparse, quantized or nested."""
    other = tensor.is_meta or tensor.is_nested or tensor.is_quantized
    return tensor.layout == torch.strided and not other


def load_pretrained_weights(model: nn.Module, weight_path: str, but: Collection[str] = ()) -> None:
    """Copies the layers of a weights file that fit `model`; names and shapes decide.

    Args:
        model: gets the weights.
        weight_path: a checkpoint with a "state_dict" entry, or a bare state dict.
        but: names of layers that stay as they are.

    Raises:
        CheckpointError: no layer fits, or the file holds no finite numbers.
    """
    checkpoint = load_checkpoint(weight_path)
    content = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(content, dict):
        raise CheckpointError(f"{weight_path} holds no state dict")
    state_dict = {k: v for k, v in _without_module(content).items() if k not in but}
    own = model.state_dict()
    fitting = {
        k: v for k, v in state_dict.items() if k in own and own[k].shape == getattr(v, "shape", 0)
    }
    if not fitting:
        raise CheckpointError(
            f"no layer of {weight_path} fits by name and shape: it holds {_shapes(state_dict)}, "
            f"the model learns {_shapes(dict(model.named_parameters()))}"
        )
    check_finite(fitting, weight_path, own)
    try:
        model.load_state_dict({**own, **fitting})
    except RuntimeError as error:
        raise CheckpointError(f"{weight_path} does not fit the model: {error}") from None
    logger.info(f"Successfully loaded pretrained weights from {weight_path}")
    left_out = [k for k in state_dict if k not in fitting]
    if left_out:
        logger.warning(f"Layers left out because of another name or shape: {left_out}")


def _shapes(tensors: Mapping[str, Any]) -> str:
    shown = [f"{name} {tuple(getattr(value, 'shape', ()))}" for name, value in tensors.items()]
    return listed(shown) or "nothing"


def _without_module(state_dict: dict[str, Any]) -> dict[str, Any]:
    return type(state_dict)((str(k).removeprefix("module."), v) for k, v in state_dict.items())
