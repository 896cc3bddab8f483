"""One frozen CLIP for the runs of a process that only read it: loaded once, folded once.

The latest is kept, and what was folded from its weights with it. Another run gets it if it wants
the same file, unchanged, in the same precision on the same device, and if nobody has written to it.

Building a CLIP draws random numbers, which the file's weights then replace; a run's own draws come
after them. A run that gets the kept CLIP skips as many, so its numbers do not depend on which runs
the process did before.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from yacs.config import CfgNode

from dassl.utils.files import file_state
from trainers.clip_utils import CLIP, check_image_size, freeze, load_clip, weights_file
from trainers.frozen_linear import Seal

AT_ONCE = 2**16  # numbers drawn to be skipped: few enough for the processor's cache

_aten = torch.ops.aten
_UNIFORM = {_aten.uniform_.default, _aten.rand.default}
_NORMAL = {_aten.normal_.default, _aten.randn.default}


def load_frozen_clip(cfg: CfgNode, precision: str, device: torch.device) -> CLIP:
    """Loads CLIP as `load_clip` does, or returns the one that this process has. Not to be changed!

    Args:
        cfg: MODEL.BACKBONE and INPUT.SIZE are read.
        precision: fp16, fp32 or amp.
        device: where the weights shall be.

    Returns:
        A model without gradients, in evaluation mode.
    """
    global _kept
    key = (_file_key(cfg), precision, device)
    if _kept is not None and _kept.key == key and _kept.is_untouched():
        check_image_size(cfg, _kept.clip_model)
        _skip(_kept.draws)
        return _kept.clip_model
    forget()
    with _DrawCounter() as counter:
        clip_model = load_clip(cfg, precision).to(device)
    freeze(clip_model)
    if counter.known:
        _kept = _Kept(key, clip_model, Seal(_weights(clip_model)), counter.draws)
    return clip_model


def forget() -> None:
    """Lets go of the CLIP that is kept."""
    global _kept
    if _kept is not None:
        _kept = None
        gc.collect()  # trainers of earlier runs hold it as well, and refer to themselves


@dataclass(frozen=True)
class _Kept:
    key: tuple
    clip_model: CLIP
    seal: Seal
    draws: int  # of building it, from the CPU's generator

    def is_untouched(self) -> bool:
        weights = list(_weights(self.clip_model))
        trained = any(weight.requires_grad for weight in weights)
        in_training = any(module.training for module in self.clip_model.modules())
        return self.seal.holds(weights) and not trained and not in_training


_kept: _Kept | None = None


def _weights(clip_model: CLIP) -> Iterator[Tensor]:
    yield from clip_model.parameters()
    yield from clip_model.buffers()


def _file_key(cfg: CfgNode) -> tuple | None:
    """Returns what changes when another file, or another content, is meant; None: no file yet."""
    path = weights_file(cfg).resolve()
    return (*file_state(path), path.stat().st_ino) if path.is_file() else None


# --- random numbers -------------------------------------------------------------------------------


class _DrawCounter(TorchDispatchMode):
    """Counts the numbers that are drawn from torch's generator of the CPU.

    torch takes one number for each value of a float32 tensor, uniform or normal; normal values are
    made in groups of 16. Where that does not hold, the count is not `known`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draws, self.known = 0, True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            plain = result.dtype == torch.float32 and result.device.type == "cpu"
            grouped = func in _NORMAL and result.numel() % 16 == 0
            self.known &= plain and (func in _UNIFORM or grouped)
            self.draws += result.numel()
        return result


def _skip(draws: int) -> None:
    """Takes so many numbers from torch's generator of the CPU."""
    state = torch.get_rng_state().numpy().tobytes()
    torch.set_rng_state(_tensor(_state_after(state, draws)))


@lru_cache(maxsize=64)  # a sweep has a few seeds, each with the same state here
def _state_after(state: bytes, draws: int) -> bytes:
    generator = torch.Generator().set_state(_tensor(state))
    scratch = torch.empty(AT_ONCE)
    for start in range(0, draws, AT_ONCE):
        scratch[: draws - start].uniform_(generator=generator)
    return generator.get_state().numpy().tobytes()


def _tensor(state: bytes) -> Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
