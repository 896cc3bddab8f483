"""Views of training images, encoded before the steps that learn from them.

No view depends on what is being learned, so an epoch's views need not be encoded a batch at a time:
they are drawn, many at once, and go through the encoder together. The draws are those of the plain
path. Steps draw nothing, so only the order among views matters, and it stays.

Shapes: B images in a batch, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

ENCODED_AT_ONCE = {"cpu": 64, "cuda": 256}  # images; a GPU is busy with so many

Batch = dict[str, Any]
Encode = Callable[[Tensor], Tensor]


class EncodedAhead:
    """A training loader's batches with "features" (B, E) in place of "img" (B, 3, H, W).

    Args:
        loader: yields batches with "img"; what is no tensor (several views) is left as it is.
        encode: images → features, both on `device`.
        device: where features are wanted.
        max_bytes: bound of the views that wait; a batch at least is taken.
    """

    def __init__(
        self, loader: Iterable, encode: Encode, device: torch.device, max_bytes: int
    ) -> None:
        self.loader, self.encode, self.device = loader, encode, device
        self.max_bytes = max_bytes

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of one pass over the loader."""
        # A pass of some samplers is longer than it says: the rest is never drawn.
        batches = islice(iter(self.loader), len(self.loader))
        while window := self._take(batches):
            self._encode(window)
            yield from window

    def _take(self, batches: Iterator[Batch]) -> list[Batch]:
        """Takes batches until their images have `max_bytes`, or there are no more."""
        taken: list[Batch] = []
        size = 0
        for batch in batches:
            taken.append(batch)
            size += batch["img"].nbytes if _has_images(batch) else 0
            if size >= self.max_bytes:
                break
        return taken

    def _encode(self, window: list[Batch]) -> None:
        """Replaces the images of some batches, many batches at a time."""
        at_once = ENCODED_AT_ONCE.get(self.device.type, 64)
        waiting: list[Batch] = []
        for batch in filter(_has_images, window):
            waiting.append(batch)
            if sum(len(b["img"]) for b in waiting) >= at_once:
                self._encode_together(waiting)
                waiting = []
        if waiting:
            self._encode_together(waiting)

    def _encode_together(self, batches: list[Batch]) -> None:
        images = [batch.pop("img").to(self.device, non_blocking=True) for batch in batches]
        features = self.encode(images[0] if len(images) == 1 else torch.cat(images))
        for batch, part in zip(batches, features.split([len(i) for i in images])):
            batch["features"] = part  # (B, E)


def _has_images(batch: Batch) -> bool:
    image = batch.get("img") if isinstance(batch, dict) else None
    return isinstance(image, Tensor)
