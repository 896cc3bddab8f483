"""Views of training images, encoded before the steps that learn from them.

No view depends on what is being learned, so an epoch's views need not be encoded a batch at a time:
they are drawn, many at once, and go through the encoder together. The draws are those of the plain
path. Steps draw nothing, so only the order among views matters, and it stays. Processes read the
next views while these are encoded and learned from.

Shapes: B images in a batch, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from features.reading import ENCODED_AT_ONCE

Batch = dict[str, Any]
Encode = Callable[[Tensor], Tensor]


class EncodedAhead:
    """A training loader's batches with "features" (B, E) in place of "img" (B, 3, H, W).

    Args:
        loader: yields batches with "img"; what is no tensor (several views) is left as it is.
        encode: images → features, both on `device`.
        device: where features are wanted.
        max_bytes: of views that are encoded in one go, as floats; a batch at least is taken.
    """

    def __init__(
        self, loader: Iterable, encode: Encode, device: torch.device, max_bytes: int
    ) -> None:
        self.loader, self.encode, self.device = loader, encode, device
        self.max_bytes = max_bytes

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of one pass over the loader."""
        # A pass of some samplers is longer than it says: the rest is never drawn.
        for group in self._groups(islice(iter(self.loader), len(self.loader))):
            if with_images := list(filter(_has_images, group)):
                self._encode_together(with_images)
            yield from group

    def _groups(self, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
        """Yields batches with enough images to be encoded together.

        While they are, processes read the next ones. After `max_bytes` a group ends as well: which
        images go together decides on the last bit of a feature.
        """
        at_once = ENCODED_AT_ONCE.get(self.device.type, 64)
        group: list[Batch] = []
        images = size = 0
        for batch in batches:
            group.append(batch)
            if _has_images(batch):
                images += len(batch["img"])
                size += 4 * batch["img"].numel()  # as floats
            if images >= at_once or size >= self.max_bytes:
                yield group
                group, images = [], 0
                size = 0 if size >= self.max_bytes else size
        if group:
            yield group

    def _encode_together(self, batches: list[Batch]) -> None:
        images = [batch.pop("img").to(self.device, non_blocking=True) for batch in batches]
        features = self.encode(images[0] if len(images) == 1 else torch.cat(images))
        for batch, part in zip(batches, features.split([len(i) for i in images])):
            batch["features"] = part  # (B, E)


def _has_images(batch: Batch) -> bool:
    image = batch.get("img") if isinstance(batch, dict) else None
    return isinstance(image, Tensor)
