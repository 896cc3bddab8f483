"""A loader's batches with features in place of images, encoded ahead or looked up.

Shapes: B images, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from dassl.data.workers import Loader, advance_rng_like_a_pass
from dassl.utils.random_state import random_state_kept
from encoders import ImageEncoder
from features.ahead import Encode, EncodedAhead
from features.keys import VIEW_STEPS, file_ids, is_plain, loader_ids, space_of
from features.reading import ENCODED_AT_ONCE, ByteImages, byte_loader, joined, reading_loader
from features.store import FeatureStore, default_folder
from features.views import FixedViews, labels_of


@dataclass(frozen=True)
class Settings:
    """How features are kept; none of it but `fixed_views` changes a number.

    Attributes:
        ahead_bytes: of training views that are encoded in one go; 0: batch by batch, on images.
        store_bytes: bound of the features on disk; 0: nothing is kept.
        folder: of the store; empty: the user's cache.
        fixed_views: seed of views that depend on seed, epoch and image alone; None: drawn as ever.
    """

    ahead_bytes: int
    store_bytes: int
    folder: str
    fixed_views: int | None


class ImageFeatures:
    """Gives features in place of images, as one frozen encoder makes them.

    Args:
        encoder: makes them; it counts what it encodes.
        encode: images (B, 3, H, W) → features (B, E), float32, not normalized: the encoder as the
            method uses it.
        precision: of `encode`, such as "fp16".
        device: where training features are wanted.
        settings: how they are kept.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        encode: Encode,
        precision: str,
        device: torch.device,
        settings: Settings,
    ) -> None:
        self.encoder, self.encode, self.precision = encoder, encode, precision
        self.device, self.settings = device, settings
        self._views: FixedViews | None = None
        self._store: FeatureStore | None = None
        self._bytes: tuple[tuple, DataLoader, ByteImages] | None = None

    def training(self, loader: Iterable, epoch: int) -> Iterable:
        """Returns the batches of an epoch (from 0), {"features": (B, E), "label": (B,), ...}."""
        if self.settings.fixed_views is not None and is_plain(loader):
            return self._fixed_views(loader).one_pass(epoch)
        if not self.settings.ahead_bytes:
            return loader
        loader, encode = self._of_bytes(loader)
        return EncodedAhead(loader, encode, self.device, self.settings.ahead_bytes)

    def stored(self, loader: Iterable) -> Iterable:
        """Returns an unshuffled loader's batches with stored features, where that can be."""
        store = self.store()
        ids = loader_ids(loader) if store is not None else None
        if ids is None:
            return loader
        return StoredBatches(loader, ids, store, self.encode, self.device)

    def store(self) -> FeatureStore | None:
        """Returns the store of the encoder's features as it is now; None: nothing is kept."""
        settings = self.settings
        if not settings.store_bytes:
            return None
        folder = Path(settings.folder).expanduser() if settings.folder else default_folder()
        space = space_of(self.encoder.visual, self.precision, self.device)
        if self._store is None or self._store.space.name != space:
            self._store = FeatureStore(folder, space, settings.store_bytes)
        return self._store

    def _of_bytes(self, loader: Iterable) -> tuple[Iterable, Encode]:
        """Returns a loader with the same draws whose images are bytes, and how to encode them."""
        if type(loader) is not Loader or not is_plain(loader):
            return loader, self.encode
        wanted = (loader, loader.dataset.transform)
        if self._bytes is None or self._bytes[0] != wanted:
            images = ByteImages(loader.dataset)
            at_once = ENCODED_AT_ONCE.get(self.device.type, 64)
            self._bytes = (wanted, byte_loader(loader, images, at_once), images)
        _, of_bytes, images = self._bytes
        return of_bytes, lambda some: self.encode(images.floats(some))

    def _fixed_views(self, loader: DataLoader) -> FixedViews:
        if self._views is None or self._views.loader is not loader:
            store = self.store()
            ids = file_ids(loader.dataset, VIEW_STEPS, loader.dataset.cfg.INPUT) if store else None
            seed = self.settings.fixed_views
            self._views = FixedViews(
                loader, seed, self.encode, self.device, store if ids else None, ids
            )
        return self._views


class StoredBatches:
    """A test loader's batches with stored features in place of images; lacking ones are added.

    Args:
        loader: of the plain path, unshuffled.
        ids: what its images are in the store.
        store: the store.
        encode: images → features.
        device: where `encode` computes.
    """

    def __init__(
        self,
        loader: DataLoader,
        ids: list[bytes],
        store: FeatureStore,
        encode: Encode,
        device: torch.device,
    ) -> None:
        self.loader, self.ids, self.store, self.encode = loader, ids, store, encode
        self.device = device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        advance_rng_like_a_pass()
        items = self.loader.dataset.data_source
        start = 0
        for features in self.store.stream(self.ids, self._compute, self.loader.batch_size):
            indices = range(start, start + len(features))
            yield {"features": torch.from_numpy(features), **labels_of(items, indices)}
            start += len(features)

    def _compute(self, positions: list[int]) -> Iterator[np.ndarray]:
        images = ByteImages(self.loader.dataset)
        at_once = ENCODED_AT_ONCE.get(self.device.type, 64)
        loader = reading_loader(images.dataset, positions, self.loader, at_once)
        with random_state_kept():
            batches = iter(loader)  # draws, as every pass does, but this one is ours
        for some in joined((batch["img"] for batch in batches), at_once, self.device):
            yield self.encode(images.floats(some)).cpu().numpy()
