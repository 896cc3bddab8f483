"""Views of training images, encoded before the steps that learn from them.

No view depends on what is being learned, so an epoch's views need not be encoded a batch at a time:
they are drawn, many at once, and go through the encoder together. The draws are those of the plain
path. Steps draw nothing, so only the order among views matters, and it stays; where something else
draws (an evaluation after an epoch), the generators are in the state in which the plain path leaves
them.

Shapes: B images in a batch, E embedding size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dassl.data.workers import Loader

ENCODED_AT_ONCE = {"cpu": 64, "cuda": 256}  # images; a GPU is busy with so many

Batch = dict[str, Any]
Encode = Callable[[Tensor], Tensor]


class EncodedAhead:
    """A training loader's batches with features (B, E) in place of images (B, 3, H, W).

    Args:
        loader: yields batches with "img"; what is no 4-dimensional tensor is left as it is.
        encode: images → features, both on `device`.
        device: where features are wanted.
        max_bytes: bound of the views that wait; a batch at least is taken.
    """

    def __init__(
        self, loader: Iterable, encode: Encode, device: torch.device, max_bytes: int
    ) -> None:
        self.loader, self.encode, self.device = loader, encode, device
        self.max_bytes = max_bytes // 2  # for this pass, and as much for the next one
        self._next: _NextPass | None = None

    def one_pass(self, more: bool) -> Iterator[Batch]:
        """Yields the batches of one pass over the loader.

        Args:
            more: another pass will follow, probably without other draws in between: worker
                processes, if there are any, load its views while this one is trained on.
        """
        batches, self._next = self._next.take_over() if self._next else None, None
        left = len(self.loader)  # a pass of some samplers is longer: the rest is never drawn
        batches = islice(batches or iter(self.loader), left)
        while window := _take(batches, self.max_bytes):
            self._encode(window)
            left -= len(window)
            if left == 0 and more and isinstance(self.loader, Loader) and self.loader.num_workers:
                self._next = _NextPass(self.loader, self.max_bytes)
            yield from window

    def _encode(self, window: list[Batch]) -> None:
        """Replaces the images of some batches, many batches at a time."""
        at_once = ENCODED_AT_ONCE.get(self.device.type, 64)
        waiting: list[Batch] = []
        for batch in [batch for batch in window if _has_images(batch)]:
            waiting.append(batch)
            if sum(len(b["img"]) for b in waiting) >= at_once:
                self._encode_together(waiting)
                waiting = []
        if waiting:
            self._encode_together(waiting)

    def _encode_together(self, batches: list[Batch]) -> None:
        images = [batch["img"].to(self.device, non_blocking=True) for batch in batches]
        features = self.encode(images[0] if len(images) == 1 else torch.cat(images))
        for batch, part in zip(batches, features.split([len(i) for i in images])):
            batch["img"] = part  # (B, E)


class _NextPass:
    """A pass that workers have begun before its time; the generators do not show it.

    With workers, the main process draws just as a pass begins (`dassl.data.workers`). If something
    draws before the pass is wanted, it has begun too early, and begins anew.
    """

    def __init__(self, loader: Loader, max_bytes: int) -> None:
        self.before = generator_states()
        self.batches = iter(loader)
        self.after = generator_states()
        set_generator_states(self.before)
        self.taken: list[Batch] = []
        self.error: Exception | None = None
        self.thread = Thread(target=self._load, args=(max_bytes,), daemon=True)
        self.thread.start()

    def _load(self, max_bytes: int) -> None:
        try:
            _take(self.batches, max_bytes, self.taken)
        except Exception as error:  # belongs to whoever asks for the batch
            self.error = error

    def take_over(self) -> Iterator[Batch] | None:
        """Returns the batches, as if the pass began now; None if it would be another one."""
        self.thread.join()
        if generator_states() != self.before:
            return None
        set_generator_states(self.after)
        return chain(self.taken, self.batches if self.error is None else _raise(self.error))


def _take(batches: Iterator[Batch], max_bytes: int, into: list | None = None) -> list[Batch]:
    """Takes batches until their images have `max_bytes`, or there are no more."""
    taken = [] if into is None else into
    size = 0
    for batch in batches:
        taken.append(batch)
        size += batch["img"].nbytes if _has_images(batch) else 0
        if size >= max_bytes:
            break
    return taken


def _has_images(batch: Batch) -> bool:
    image = batch.get("img") if isinstance(batch, dict) else None
    return isinstance(image, Tensor) and image.dim() == 4


def _raise(error: Exception) -> Iterator[Batch]:
    raise error
    yield  # makes it an iterator


# --- the global generators ------------------------------------------------------------------------


def generator_states() -> tuple:
    """Returns the states of Python's, numpy's and torch's generators; they compare by value."""
    name, keys, *rest = np.random.get_state()
    return (
        random.getstate(),
        (name, keys.tobytes(), *rest),
        torch.get_rng_state().numpy().tobytes(),
    )


def set_generator_states(states: tuple) -> None:
    """Sets the generators to what `generator_states` returned."""
    python, (name, keys, *rest), pytorch = states
    random.setstate(python)
    np.random.set_state((name, np.frombuffer(keys, np.uint32), *rest))
    torch.set_rng_state(torch.frombuffer(bytearray(pytorch), dtype=torch.uint8))
