"""The image side of trainers that never learn there: features are made once and looked up.

A trainer whose class says `frozen_image_side = True` gets, wherever a batch has images, their
features instead: (B, E) in place of (B, 3, H, W), as the encoder gives them, not normalized.
Training views are encoded ahead (`encode_ahead`); features of test images, and of fixed views, are
kept on disk (`feature_store`).

Shapes: B images, E embedding size.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler
from torchvision import transforms as T
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.config import mark_not_determining
from dassl.data import DatasetWrapper, build_data_loader
from dassl.data.datasets import Datum
from dassl.data.workers import advance_rng_like_a_pass, plain_sampler
from dassl.engine import TrainerX
from dassl.utils import read_image
from dassl.utils.files import file_state
from trainers import (
    clip_utils,
    frozen_linear,
    frozen_resnet,
    image_encoder,
    pooled_attention,
)
from trainers.encode_ahead import (
    ENCODED_AT_ONCE,
    EncodedAhead,
    generator_states,
    set_generator_states,
)
from trainers.feature_store import FeatureStore, default_folder, make_id
from trainers.fixed_views import FixedViews
from trainers.image_encoder import ImageEncoder

# The code that makes a feature of a file, beside torch, torchvision and Pillow
SOURCES = (
    image_encoder,
    frozen_linear,
    frozen_resnet,
    pooled_attention,
    sys.modules[clip_utils.CLIP.__module__],
    read_image,
)
# Steps whose text says all that they do; the first ones are not random.
TEST_STEPS = (T.Resize, T.CenterCrop, T.ToTensor, T.Normalize)
VIEW_STEPS = (
    *TEST_STEPS,
    T.RandomResizedCrop,
    T.RandomCrop,
    T.RandomHorizontalFlip,
    T.ColorJitter,
    T.RandomGrayscale,
)

_digests: WeakKeyDictionary[nn.Module, tuple[frozen_linear.Seal, str]] = WeakKeyDictionary()


def extend_cfg(cfg: CfgNode) -> None:
    # Draw training views from (SEED, epoch) alone, the same for all methods, and keep their
    # features. Other draws than the public implementation's: off unless asked for.
    cfg.MODEL.FIXED_VIEWS = False
    cfg.MODEL.FEATURES = CN()
    mark_not_determining(cfg, "MODEL.FEATURES")  # how fast, not what
    cfg.MODEL.FEATURES.AHEAD_MB = 512  # MiB of training views drawn ahead; 0: batch by batch
    cfg.MODEL.FEATURES.STORE_MB = 1024  # MiB of features kept on disk; 0: nothing is
    cfg.MODEL.FEATURES.FOLDER = ""  # where; empty: the user's cache


class FrozenImageSide(TrainerX):
    """Gives features in place of images to trainers that say they never learn on the image side.

    A class says so itself, by `frozen_image_side = True`: a subclass, which may do other things
    with images, must repeat it and gets images as long as it does not. Such a class defines
    `frozen_encoder`, its steps draw no random numbers, and wherever its model takes images
    (B, 3, H, W) it takes their features (B, E) as well.
    """

    frozen_image_side = False

    def frozen_encoder(self) -> ImageEncoder:
        """Returns the encoder that makes the features."""
        raise NotImplementedError

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) → features (B, E), as the model would make them, but float32."""
        encoder = self.frozen_encoder()
        images = images.to(self.device, non_blocking=True)
        return encoder(images.to(encoder.visual.conv1.weight.dtype)).float()

    def takes_features(self) -> bool:
        if not vars(type(self)).get("frozen_image_side", False):
            return False
        return not any(p.requires_grad for p in self.frozen_encoder().visual.parameters())

    # --- training ---------------------------------------------------------------------------------

    def train_inputs(self) -> Iterable:
        loader, model = super().train_inputs(), self.cfg.MODEL
        if not self.takes_features():
            if model.FIXED_VIEWS and self.epoch == self.start_epoch:
                print(f"MODEL.FIXED_VIEWS: {type(self).__name__} takes images, drawn as ever")
            return loader
        if model.FIXED_VIEWS and _is_plain(loader):
            return self._fixed_views(loader).one_pass(self.epoch)
        if not model.FEATURES.AHEAD_MB:
            return loader
        ahead = self.__dict__.get("_ahead")
        if ahead is None or ahead.loader is not loader:
            max_bytes = model.FEATURES.AHEAD_MB * 2**20
            self._ahead = ahead = EncodedAhead(loader, self.encode_images, self.device, max_bytes)
        validates = not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val"
        return ahead.one_pass(more=self.epoch + 1 < self.max_epoch and not validates)

    def _fixed_views(self, loader: DataLoader) -> FixedViews:
        views = self.__dict__.get("_views")
        if views is None or views.loader is not loader:
            store, ids = self._store(), None
            if store is not None:
                ids = file_ids(loader.dataset, VIEW_STEPS, self.cfg.INPUT)
            self._views = views = FixedViews(
                loader, self.cfg.SEED, self.encode_images, self.device, store if ids else None, ids
            )
        return views

    # --- evaluation -------------------------------------------------------------------------------

    def test_inputs(self, split: str) -> Iterable:
        loader = super().test_inputs(split)
        if not self.takes_features():
            return loader
        self._encoded_before = self.frozen_encoder().images
        return self.stored(loader)

    def stored(self, loader: Iterable) -> Iterable:
        """Returns an unshuffled loader's batches with stored features, where that can be."""
        store = self._store()
        ids = loader_ids(loader) if store is not None else None
        return loader if ids is None else StoredBatches(loader, ids, store, self.encode_images)

    def result_record(self, split: str, results: dict[str, float], seconds: float) -> dict:
        record = super().result_record(split, results, seconds)
        if self.takes_features():  # tells what `seconds` means
            record["images_encoded"] = self.frozen_encoder().images - self._encoded_before
        return record

    def _store(self) -> FeatureStore | None:
        settings = self.cfg.MODEL.FEATURES
        if not settings.STORE_MB:
            return None
        folder = Path(settings.FOLDER).expanduser() if settings.FOLDER else default_folder()
        space = space_of(self.frozen_encoder().visual, self.precision, self.device)
        store = self.__dict__.get("_opened")
        if store is None or (store.folder, store.space.name) != (folder, space):
            self._opened = store = FeatureStore(folder, space, settings.STORE_MB * 2**20)
        return store


class StoredBatches:
    """A test loader's batches with stored features in place of images; lacking ones are added.

    Args:
        loader: of the plain path, unshuffled.
        ids: what its images are in the store.
        store: the store.
        encode: images → features.
    """

    def __init__(self, loader: DataLoader, ids: list[bytes], store: FeatureStore, encode) -> None:
        self.loader, self.ids, self.store, self.encode = loader, ids, store, encode

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        advance_rng_like_a_pass()
        items: list[Datum] = self.loader.dataset.data_source
        start = 0
        for features in self.store.stream(self.ids, self._compute, self.loader.batch_size):
            some = items[start : start + len(features)]
            yield {
                "img": torch.from_numpy(features),  # (B, E)
                "label": torch.tensor([item.label for item in some]),
                "domain": torch.tensor([item.domain for item in some]),
                "impath": [item.impath for item in some],
                "index": torch.arange(start, start + len(some)),
            }
            start += len(some)

    def _compute(self, positions: list[int]) -> Iterator[np.ndarray]:
        dataset = self.loader.dataset
        loader = build_data_loader(
            dataset.cfg,
            data_source=[dataset.data_source[i] for i in positions],
            batch_size=ENCODED_AT_ONCE["cuda" if torch.cuda.is_available() else "cpu"],
            tfm=dataset.transform,
            is_train=False,
        )
        states = generator_states()
        batches = iter(loader)  # draws, as every pass does, but this one is ours
        set_generator_states(states)
        for batch in batches:
            yield self.encode(batch["img"]).cpu().numpy()


# --- what a feature is the feature of -------------------------------------------------------------


def space_of(visual: nn.Module, precision: str, device: torch.device) -> str:
    """Names what features are computed by: weights, precision, code, device."""
    settings = [precision, device.type, torch.__version__, _code_digest()]
    settings.append(torch.are_deterministic_algorithms_enabled())
    if device.type == "cuda":
        settings += [torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    digest = make_id(_weights_digest(visual), *settings).hex()
    return f"{type(visual).__name__}-{visual.output_dim}-{precision}-{digest}"


def _weights_digest(visual: nn.Module) -> str:
    tensors = visual.state_dict(keep_vars=True)
    known = _digests.get(visual)
    if known is None or not known[0].holds(tensors.values()):
        sha256 = hashlib.sha256()
        for name, tensor in sorted(tensors.items()):
            sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            sha256.update(flat.view(torch.uint8).numpy())
        known = _digests[visual] = (frozen_linear.Seal(tensors.values()), sha256.hexdigest())
    return known[1]


@cache
def _code_digest() -> str:
    text = "".join(inspect.getsource(source) for source in SOURCES)
    return hashlib.sha256(text.encode()).hexdigest()


def file_ids(
    dataset: DatasetWrapper, known: tuple[type, ...], more: object = None
) -> list[bytes] | None:
    """Returns an id for each image of a dataset: a file, and what is done to its content.

    Args:
        dataset: with a composed transform.
        known: the steps that the transform may have.
        more: settings behind the transform, where its text rounds them.

    Returns:
        The ids; None if the transform has other steps, or a file is missing.
    """
    if any(type(step) not in known for step in dataset.transform.transforms):
        return None
    how = (repr(dataset.transform), more, PIL.__version__, torchvision.__version__)
    try:
        return [make_id(how, *file_state(item.impath)) for item in dataset.data_source]
    except OSError:  # the plain path says which file is missing
        return None


def loader_ids(loader: Iterable) -> list[bytes] | None:
    """Returns the ids of a test loader's images; None if its batches are not only their images."""
    if not _is_plain(loader) or type(plain_sampler(loader)) is not SequentialSampler:
        return None
    return file_ids(loader.dataset, TEST_STEPS)


def _is_plain(loader: Iterable) -> bool:
    """Whether a loader gives one view of each image by our own dataset class."""
    dataset = getattr(loader, "dataset", None)
    return (
        type(dataset) is DatasetWrapper
        and type(dataset.transform) is T.Compose
        and dataset.k_tfm == 1
        and not dataset.return_img0
    )
