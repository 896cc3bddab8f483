"""One frozen CLIP for the runs of a process that only read it: loaded once, folded once.

The latest is kept, and what was folded from its weights with it. Another run gets it if it wants
the same file, unchanged, in the same precision on the same device, and if nobody has written to it.

Building a CLIP draws random numbers, which the file's weights then replace; a run's own draws come
after them. So the generator is put where loading leaves it: a run's numbers do not depend on which
runs the process did before.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dassl.utils.files import file_state
from encoders.kernels.folding import Fingerprint
from encoders.load import freeze, load_model, weights_file
from encoders.open_clip import Backbone, Source, parsed
from encoders.openai import CLIP, advance_rng_like_building


def load_frozen_clip(
    name_or_file: Backbone,
    precision: str,
    device: torch.device,
    activation: str = "",
    head_width: int = 0,
) -> CLIP:
    """Loads CLIP as `load_model` does, or returns the one that this process has; never change it.

    Args:
        name_or_file: see `encoders.load`.
        precision: fp16, fp32 or amp.
        device: where the weights shall be.
        activation, head_width: what is known of the file, see `families`.

    Returns:
        A model without gradients, in evaluation mode.
    """
    global _kept
    key = (_file_key(name_or_file), precision, device, activation, head_width)
    before = _generator_state()
    if _kept is not None and _kept.key == key and _kept.is_untouched():
        if before not in _kept.draws:  # another seed: see where the generator would be
            advance_rng_like_building(_kept.clip_model)
            _kept.draws[before] = torch.get_rng_state()
        torch.set_rng_state(_kept.draws[before])
        return _kept.clip_model
    forget()
    clip_model = load_model(name_or_file, precision, activation, head_width).to(device)
    freeze(clip_model)
    _kept = _Kept(
        key, clip_model, Fingerprint(_weights(clip_model)), {before: torch.get_rng_state()}
    )
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
    fingerprint: Fingerprint
    draws: dict[bytes, Tensor] = field(default_factory=dict)  # state before loading → after it

    def is_untouched(self) -> bool:
        weights = list(_weights(self.clip_model))
        trained = any(weight.requires_grad for weight in weights)
        in_training = any(module.training for module in self.clip_model.modules())
        return self.fingerprint.matches(weights) and not trained and not in_training


_kept: _Kept | None = None


def _weights(clip_model: CLIP) -> Iterator[Tensor]:
    yield from clip_model.parameters()
    yield from clip_model.buffers()


def _generator_state() -> bytes:
    return torch.get_rng_state().numpy().tobytes()


def _file_key(name_or_file: Backbone) -> tuple | None:
    """Returns what changes when another file, or another content, is meant; None: no file yet."""
    path = weights_file(name_or_file).resolve()
    if not path.is_file():
        return None
    source = parsed(name_or_file)  # the file alone does not tell how it is read
    read_as = str(source) if isinstance(source, Source) else ""
    return (*file_state(path), path.stat().st_ino, read_as)
