"""Reading images for an encoder: as bytes, and about as many ahead as it takes at once.

A picture has a byte a channel and pixel until its last steps, ToTensor and Normalize, make floats
of it. So processes hand on bytes, a quarter of the memory on every way, and the floats are looked
up where the encoder works: there are 256 for each channel, those that the very steps made of 256
bytes. The same bits come out, whatever divides or multiplies there.

Shapes: B images, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms as T

from dassl.data import DatasetWrapper
from dassl.data.workers import Loader, plain_sampler, usable_cores
from features.keys import VIEW_STEPS

ENCODED_AT_ONCE = {"cpu": 64, "cuda": 256}  # images; a GPU is busy with so many
READ_TOGETHER = 64  # images in a batch of the processes that only read


class ByteImages:
    """A dataset that hands on bytes where that can be, and how floats are made of them.

    Attributes:
        dataset: as given, but for the last steps of its transform; or as given.

    Args:
        dataset: of images with one transform.
    """

    def __init__(self, dataset: DatasetWrapper) -> None:
        self.dataset, self._table = dataset, None
        self._tables: dict[torch.device, Tensor] = {}
        steps = dataset.transform.transforms
        end = next((i for i, step in enumerate(steps) if type(step) is T.ToTensor), len(steps))
        kinds = {type(step) for step in steps[:end]}
        if end < len(steps) and kinds <= set(VIEW_STEPS) and _only_normalize(steps[end + 1 :]):
            self.dataset = copy(dataset)  # shares the images that are kept in memory
            self.dataset.transform = T.Compose([*steps[:end], _to_bytes])
            self._table = _floats_of_bytes(T.Compose(steps[end:]))

    def floats(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) as the dataset gives them → as the whole transform would, same device."""
        if self._table is None:
            return images
        device = images.device
        if device not in self._tables:
            self._tables[device] = self._table.to(device)  # (3, 256)
        table = self._tables[device]
        first = torch.arange(0, table.numel(), 256, dtype=torch.int32, device=device)
        places = images.int().add_(first[:, None, None])
        return table.flatten().index_select(0, places.flatten()).view(images.shape)


def _only_normalize(steps: list) -> bool:
    return [type(step) for step in steps] in ([], [T.Normalize])


def _to_bytes(image: Image.Image) -> Tensor:
    """RGB image → (3, H, W) uint8"""
    assert image.mode == "RGB", image.mode  # what readers give, and VIEW_STEPS keep
    return T.functional.pil_to_tensor(image)


def _floats_of_bytes(steps: T.Compose) -> Tensor:
    """Returns what the steps make of every byte in every channel: (3, 256)."""
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    return steps(Image.fromarray(values))[:, 0]


def byte_loader(loader: DataLoader, images: ByteImages, at_once: int) -> DataLoader:
    """Returns a loader like one of `build_data_loader`, of bytes, that draws the same numbers.

    Args:
        loader: see `features.keys.is_plain`.
        images: of its dataset.
        at_once: so many images are read while so many are encoded.
    """
    settings = loader.dataset.cfg.DATALOADER
    return Loader(
        images.dataset,
        batch_size=loader.batch_size,
        sampler=plain_sampler(loader),
        num_workers=settings.NUM_WORKERS,
        processes=settings.PROCESSES,
        drop_last=loader.drop_last,
        pin_memory=loader.pin_memory,
        ahead=at_once,
    )


def reading_loader(
    dataset: Dataset, order: Sampler | Sequence[int], like: DataLoader, at_once: int
) -> DataLoader:
    """Returns a loader of images that draw nothing: any number of processes may read them.

    Args:
        dataset: of bytes or floats.
        order: of the images.
        like: says whether there are processes at all (DATALOADER.NUM_WORKERS 0), and how many
            (DATALOADER.PROCESSES; 0: one a core).
        at_once: so many images are read while so many are encoded.
    """
    settings = like.dataset.cfg.DATALOADER
    processes = min(settings.PROCESSES or usable_cores(), -(-len(order) // READ_TOGETHER))
    return Loader(
        dataset,
        batch_size=READ_TOGETHER,
        sampler=order,
        num_workers=processes if settings.NUM_WORKERS else 0,
        processes=processes,
        drop_last=False,
        pin_memory=like.pin_memory,
        ahead=at_once,
    )


def joined(batches: Iterable[Tensor], at_once: int, device: torch.device) -> Iterator[Tensor]:
    """Yields images on `device`, about `at_once` together."""
    waiting: list[Tensor] = []
    for images in batches:
        waiting.append(images.to(device, non_blocking=True))
        if sum(map(len, waiting)) >= at_once:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)
