"""Which device a run computes on, and how: decided here, and nowhere else."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from dassl.utils.errors import UserError
from dassl.utils.logger import get_logger

if TYPE_CHECKING:
    from yacs.config import CfgNode

logger = get_logger(__name__)

PATIENCE = 60  # seconds for nvidia-smi, which wakes GPUs that sleep
_REASONS = {  # words of CUDA's errors, and what they mean
    "busy or unavailable": "another process has it for itself, or its compute mode is Prohibited",
    "out of memory": "its memory is full",
    "no kernel image": "this PyTorch has no code for a GPU of its kind",
    "too old": "the NVIDIA driver is too old for this PyTorch",
    "driver version is insufficient": "the NVIDIA driver is too old for this PyTorch",
}
_CHOICES = (
    "type CUDA_VISIBLE_DEVICES=NUMBER before the command for another one, or USE_CUDA False behind "
    "it for the CPU"
)


class DeviceError(UserError):
    """The GPU that was asked for cannot be used."""


def device_of(cfg: CfgNode) -> torch.device:
    """Returns the GPU if USE_CUDA allows it and there is one, else the CPU.

    With USE_CUDA False nothing is asked of CUDA: a question alone can load the driver.
    """
    return torch.device("cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu")


def forget_peak_memory(device: torch.device) -> None:
    """Begins a run's peak of memory: what earlier runs of the process took is not in it."""
    if device.type == "cuda":
        gc.collect()  # their trainers refer to themselves, and hold their memory until then
        torch.cuda.reset_peak_memory_stats(device)


def prepare_device(cfg: CfgNode) -> None:
    """Sets the process up to compute: tries the device, and settles how it multiplies.

    Raises:
        DeviceError: there is a GPU, but it cannot be used, or CUDA_VISIBLE_DEVICES names none.
    """
    device = device_of(cfg)
    if device.type == "cuda":
        _try(device)
    elif cfg.USE_CUDA:
        _look_for_one()
    torch.backends.cudnn.benchmark = device.type == "cuda"
    multiply_in_full()


def multiply_in_full() -> None:
    """float32 means float32, without TF32; and half-precision products are summed up in float32."""
    if hasattr(torch.backends, "fp32_precision"):  # from torch 2.9; first, or the two ways mix
        torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def _try(device: torch.device) -> None:
    """Raises DeviceError if the GPU does not compute."""
    try:
        torch.ones(2, device=device).sum().item()
    except RuntimeError as error:
        raise DeviceError(
            f"{_name(device)} cannot be used: {_reason(error)}; {_advice()}"
        ) from error


def _look_for_one() -> None:
    """Says why torch sees no GPU, where that is not as it should be.

    Raises:
        DeviceError: CUDA_VISIBLE_DEVICES asks for one, and the driver is there.
    """
    if torch.version.cuda is None:
        return  # a PyTorch for CPUs
    try:
        torch.cuda.init()
        reason = "torch finds no GPU"
    except (RuntimeError, AssertionError) as error:
        if "Found no NVIDIA driver" in str(error):
            return
        reason = _reason(error)
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if wanted and wanted not in ("-1", "NoDevFiles"):
        raise DeviceError(
            f"CUDA_VISIBLE_DEVICES is {wanted!r}, but no GPU can be used: {reason}; {_advice()}"
        )
    if "CUDA_VISIBLE_DEVICES" not in os.environ and installed_gpus():
        logger.warning(f"Note: computing on the CPU, as no GPU can be used: {reason}; {_advice()}")


def is_full_gpu(error: BaseException) -> bool:
    """Whether a GPU's memory is full, in the words of torch's allocator or of CUDA's libraries."""
    words = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def full_memory(device: torch.device | None = None) -> str:
    """Returns what to say and do where a GPU's memory is full."""
    return (
        f"the memory of {_name(device or torch.device('cuda'))} is full: set a smaller "
        "MODEL.TEXT_CHUNK (tokens at a time, such as 4096) or DATALOADER.TEST.BATCH_SIZE, which "
        "change no number, or a smaller DATALOADER.TRAIN_X.BATCH_SIZE, which is another recipe; "
        f"{_advice()}"
    )


def _reason(error: BaseException) -> str:
    text = str(error)
    known = [reason for words, reason in _REASONS.items() if words in text]
    return known[0] if known else text.splitlines()[0].rstrip(".")


def _name(device: torch.device) -> str:
    with suppress(RuntimeError, AssertionError):
        index = torch.cuda.current_device() if device.index is None else device.index
        return f"cuda:{index} ({torch.cuda.get_device_name(index)})"
    return str(device)


def _advice() -> str:
    there = installed_gpus()
    return (f"there are {'; '.join(there)}: " if there else "") + _CHOICES


def installed_gpus() -> list[str]:
    """Returns number, name and free memory of all GPUs, as the driver knows them."""
    query = "--query-gpu=index,name,memory.free,memory.total"
    answer = nvidia_smi(query, "--format=csv,noheader") or ""
    rows = [[part.strip() for part in line.split(",")] for line in answer.splitlines()]
    return [
        f"{number} = {name} ({free} of {total} free)"
        for number, name, free, total in (row for row in rows if len(row) == 4)
    ]


def nvidia_smi(*arguments: str) -> str | None:
    """Returns what the driver's program answers; None: it is not there, or gives no answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        said = getattr(error, "stdout", None) or getattr(error, "stderr", None) or str(error)
        logger.warning(f"Note: nvidia-smi gives no answer: {str(said).strip().splitlines()[-1:]}")
        return None
    return done.stdout
