"""Training views that depend on (seed, epoch, image) alone, so that all methods share them.

Upstream's views depend on everything drawn before them: the initialization of the method, its batch
size. With MODEL.FIXED_VIEWS each view is drawn from a seed of its own instead, and its feature can
be kept: a second method on the same seed finds all of them. Only the order in which an epoch visits
the images is drawn as ever.

Shapes: N training images, B images in a batch, E embedding size.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.utils.random_state import random_state_kept
from features.ahead import Encode
from features.reading import ENCODED_AT_ONCE, ByteImages, joined, reading_loader
from features.store import FeatureStore, make_id


class FixedViews:
    """A training loader's batches, with "features" of fixed views in place of "img".

    Args:
        loader: of the plain path; gives the order and the images.
        seed: of the run.
        encode: images → features, both on `device`.
        device: where features are wanted.
        store: keeps features; None: nothing is kept.
        ids: what each training image and its transform is; None with `store` None.
    """

    def __init__(
        self,
        loader: DataLoader,
        seed: int,
        encode: Encode,
        device: torch.device,
        store: FeatureStore | None,
        ids: list[bytes] | None,
    ) -> None:
        self.loader, self.seed, self.encode, self.device = loader, seed, encode, device
        self.store, self.ids = store, ids
        self.wanted = _Wanted(len(loader.dataset))
        self.images = ByteImages(loader.dataset)
        self.at_once = ENCODED_AT_ONCE.get(device.type, 64)
        seeded = _SeededViews(self.images.dataset, seed)
        self.views = reading_loader(seeded, self.wanted, loader, self.at_once)

    def one_pass(self, epoch: int) -> Iterator[dict[str, Any]]:
        """Yields the batches of an epoch, counted from 0."""
        items = self.loader.dataset.data_source
        features = self._features(epoch)  # (N, E)
        for indices in islice(self.loader.batch_sampler, len(self.loader)):
            rows = torch.tensor(indices).to(self.device, non_blocking=True)
            yield {"features": features[rows], **labels_of(items, indices)}

    def _features(self, epoch: int) -> Tensor:
        def compute(positions: list[int]) -> Iterator[np.ndarray]:
            return self._compute(epoch, positions)

        n = len(self.loader.dataset)
        with random_state_kept():
            if self.store is None:
                rows = list(compute(list(range(n))))
            else:
                ids = [make_id(id_, "view", self.seed, epoch, i) for i, id_ in enumerate(self.ids)]
                rows = list(self.store.stream(ids, compute, n))
        return torch.from_numpy(np.concatenate(rows)).to(self.device)

    def _compute(self, epoch: int, positions: list[int]) -> Iterator[np.ndarray]:
        self.wanted.indices = [(epoch, i) for i in positions]
        images = (batch["img"] for batch in self.views)
        for some in joined(images, self.at_once, self.device):
            yield self.encode(self.images.floats(some)).cpu().numpy()


def labels_of(items: Sequence[Datum], indices: Sequence[int]) -> dict[str, Any]:
    """Returns what a loader's batch says of items beside their images."""
    some = [items[i] for i in indices]
    return {
        "label": torch.tensor([item.label for item in some]),
        "domain": torch.tensor([item.domain for item in some]),
        "impath": [item.impath for item in some],
        "index": torch.tensor(list(indices)),
    }


class _Wanted(Sampler):
    """The (epoch, image) pairs of the next pass, set from outside."""

    def __init__(self, n: int) -> None:
        self.indices = [(0, i) for i in range(n)]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class _SeededViews(Dataset):
    """Images of a dataset, each view drawn from (seed, epoch, index)."""

    def __init__(self, dataset: DatasetWrapper, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.prepare_workers: Callable[[int], None] = dataset.prepare_workers

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Any]:
        digest = hashlib.sha256(repr((self.seed, *index)).encode()).digest()
        seed = int.from_bytes(digest[:8], "big") >> 1
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.random.default_generator.manual_seed(seed)  # a GPU's generators stay as they are
        return {"img": self.dataset[index[1]]["img"]}
