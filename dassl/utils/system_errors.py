"""What goes wrong around a program, in one sentence: a full disk, a dead process, a lost folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dassl.utils.device import full_memory, is_full_gpu
from dassl.utils.errors import UserError

GO_ON = "What was written before is whole; a training goes on with --resume."
_REASONS = {
    errno.ENOSPC: "the disk is full: free some space, or choose another folder",
    errno.EDQUOT: "your quota on the disk is used up: free some space, or choose another folder",
    errno.EFBIG: "the file would be larger than is allowed",
    errno.EROFS: "the disk may only be read: choose another folder",
    errno.EACCES: "you may not write or read it: choose another folder, or ask for the right to",
    errno.EPERM: "you may not change it: choose another folder, or ask for the right to",
    errno.ENAMETOOLONG: "its name is too long: choose a shorter one",
    errno.ENOTDIR: "a part of this path is a file: choose another folder",
    errno.EEXIST: "there is a file of this name: choose another folder",
    errno.EISDIR: "it is a folder, where a file is wanted",
    errno.ENOENT: "it has vanished, or was never there",
    errno.ESTALE: "it has vanished: is its disk still connected?",
    errno.ENODEV: "it has vanished: is its disk still connected?",
    errno.EIO: "the disk reports an error",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "the memory is full",
}
_WORKERS = (
    "a process that loads images ended ({}): see the memory of the machine; DATALOADER.PROCESSES 1 "
    "takes fewer processes for the same numbers"
)
_SHARED_MEMORY = (
    "the shared memory (/dev/shm) is full: free some, give a container more (docker run "
    "--shm-size), or take fewer processes (DATALOADER.PROCESSES 1)"
)
_FULL_MEMORY = (
    "the memory is full: close other programs, or set a smaller MODEL.TEXT_CHUNK (tokens at a "
    "time, such as 4096) or DATALOADER.TEST.BATCH_SIZE, which change no number, or a smaller "
    "DATALOADER.TRAIN_X.BATCH_SIZE, which is another recipe"
)


class SystemTroubleError(UserError):
    """The system did not do what was asked of it; nothing in the program can mend that."""


@contextmanager
def system_errors_explained(advice: str = "") -> Iterator[None]:
    """Turns errors of the system into one sentence that says what to do; leaves others alone.

    Args:
        advice: a sentence for all of them, such as GO_ON.

    Raises:
        SystemTroubleError: in place of an OSError, or of torch's words for it.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, RuntimeError) as error:
        sentence = explain(error)
        if sentence is None:
            raise
        raise SystemTroubleError(f"{sentence} {advice}".rstrip()) from error


def explain(error: OSError | RuntimeError) -> str | None:
    """Returns the sentence for an error; None: it is not the system's."""
    text = str(error)
    if is_full_gpu(error):
        return f"{full_memory()}."
    if "DefaultCPUAllocator" in text:
        return f"{_FULL_MEMORY}."
    if _is_about_shared_memory(text):
        return f"{_SHARED_MEMORY}."
    if isinstance(error, OSError) and error.errno in _REASONS:
        path = error.filename2 or error.filename  # of a move: where to
        where = f"{os.fsdecode(path)}: " if path else ""
        return f"{where}{_REASONS[error.errno]}."
    if "DataLoader worker" in text and "Original Traceback" not in text:
        return f"{_WORKERS.format(text.splitlines()[0].rstrip('.'))}."
    for code, reason in _REASONS.items():  # of a loader's process: only its text came over
        if "Original Traceback" in text and f"[Errno {code}]" in text:
            return f"{text.strip().splitlines()[-1].partition('] ')[2]}: {reason}."
    if "PytorchStreamWriter" in text or "file write failed" in text:
        return f"{_REASONS[errno.ENOSPC]}."
    return None


def _is_about_shared_memory(text: str) -> bool:
    signs = ("shared memory", "</torch_", "Bus error", "/dev/shm")
    return any(sign in text for sign in signs)
