"""The states of the global random number generators: Python's, numpy's and torch's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state(gpus: bool = False) -> dict[str, Any]:
    """Returns the states as plain data and tensors, which `torch.load(weights_only=True)` reads.

    Args:
        gpus: also those of all GPUs, which waits for them.
    """
    kind, keys, *rest = np.random.get_state()
    with_gpus = gpus and torch.cuda.is_initialized()  # else no GPU has drawn anything
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if with_gpus else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` returned; states of another number of GPUs are left out."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_initialized() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever is drawn inside, from the generators of the CPU, leaves no trace outside."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
