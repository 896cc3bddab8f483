"""Datasets, transforms and samplers put together into loaders."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, Resize, ToTensor
from yacs.config import CfgNode

from dassl.data.datasets import Datum, build_dataset, image_reader
from dassl.data.image_cache import ImageCache, cache_bytes
from dassl.data.samplers import build_sampler
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.data.workers import Loader
from dassl.utils.device import device_of
from dassl.utils.errors import ConfigError, DataError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger

logger = get_logger(__name__)


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: list[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Any = None,
    is_train: bool = True,
    dataset_wrapper: type | None = None,
) -> DataLoader:
    """Builds a loader of batches {"img", "label", "domain", "impath", "index"}.

    In training, an incomplete last batch is dropped, unless it is the only one. Worker processes
    start on the first pass and stay as long as the loader (see `dassl.data.workers`).

    Args:
        dataset_wrapper: instead of DatasetWrapper; called as
            `dataset_wrapper(cfg, data_source, transform=tfm, is_train=is_train)`.

    Raises:
        DataError: there are no items.
    """
    if not data_source:
        raise DataError(
            f"{cfg.DATASET.NAME} has no {'training' if is_train else 'test'} images to load"
        )
    sampler = build_sampler(
        sampler_type,
        cfg=cfg,
        data_source=data_source,
        batch_size=batch_size,
        n_domain=n_domain,
        n_ins=n_ins,
    )
    wrapper = dataset_wrapper or DatasetWrapper
    return Loader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        processes=cfg.DATALOADER.PROCESSES,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=device_of(cfg).type == "cuda",
    )


class DataManager:
    """The dataset of a configuration and its loaders.

    Attributes:
        dataset: the dataset.
        train_loader_x, train_loader_u, val_loader, test_loader: loaders; None where the dataset
            has no such split.
        num_classes, num_source_domains, lab2cname: of the dataset.

    Args:
        cfg: the configuration.
        custom_tfm_train: instead of the transforms of INPUT.TRANSFORMS.
        custom_tfm_test: instead of resizing and centre-cropping.
        dataset_wrapper: instead of DatasetWrapper.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Any = None,
        custom_tfm_test: Any = None,
        dataset_wrapper: type | None = None,
    ) -> None:
        self.cfg = cfg
        self.dataset = build_dataset(cfg)
        tfm_train = _transform(cfg, custom_tfm_train, is_train=True)
        tfm_test = _transform(cfg, custom_tfm_test, is_train=False)

        self.train_loader_x = _train_loader(
            cfg, cfg.DATALOADER.TRAIN_X, self.dataset.train_x, tfm_train, dataset_wrapper
        )
        self.train_loader_u = None
        if self.dataset.train_u:
            same = cfg.DATALOADER.TRAIN_U.SAME_AS_X
            settings = cfg.DATALOADER.TRAIN_X if same else cfg.DATALOADER.TRAIN_U
            self.train_loader_u = _train_loader(
                cfg, settings, self.dataset.train_u, tfm_train, dataset_wrapper
            )
        self.val_loader = None
        if self.dataset.val:
            self.val_loader = _test_loader(cfg, self.dataset.val, tfm_test, dataset_wrapper)
        self.test_loader = _test_loader(cfg, self.dataset.test, tfm_test, dataset_wrapper)

        self._num_classes = self.dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = self.dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    # Subclasses of other people's set what is behind these, and call no `__init__` of ours.
    cfg: CfgNode | None = None

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    def check_images(self, training: bool) -> None:
        """Raises DataError if images that a run reads cannot be read, before it begins.

        Args:
            training: train, val and test are read; otherwise only the split of TEST.SPLIT.
        """
        parts = ("train_x", "train_u", "val", "test")
        if training:
            self._say_test_images_that_are_trained_on()
        else:
            tests_val = self.cfg is not None and self.cfg.TEST.SPLIT == "val" and self.dataset.val
            parts = ("val",) if tests_val else ("test",)
        items = (item for part in parts for item in getattr(self.dataset, part) or ())
        self.dataset.check_images(list(dict.fromkeys(item.impath for item in items)))

    def _say_test_images_that_are_trained_on(self) -> None:
        trained = {item.impath for item in self.dataset.train_x}
        shared = [item.impath for item in self.dataset.test or () if item.impath in trained]
        if shared:
            logger.warning(
                f"Note: {len(shared):,} of the {len(self.dataset.test):,} test images of "
                f"{type(self.dataset).__name__} are its training images "
                f"({listed(shared, at_most=1)}): a test on them says nothing. The data may be for "
                "--eval-only."
            )

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Prints a table of what was loaded."""
        rows = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        rows.append(["# classes", f"{self.num_classes:,}"])
        for name in ("train_x", "train_u", "val", "test"):
            items = getattr(self.dataset, name)
            if items or name in ("train_x", "test"):
                rows.append([f"# {name}", f"{len(items):,}"])
        logger.info(tabulate(rows))


def _transform(cfg: CfgNode, custom: Any, is_train: bool) -> Any:
    if custom is None:
        return build_transform(cfg, is_train=is_train)
    logger.info(f"* Using custom transform for {'training' if is_train else 'testing'}")
    return custom


def _train_loader(
    cfg: CfgNode, settings: CfgNode, items: list[Datum], tfm: Any, wrapper: type | None
) -> DataLoader:
    return build_data_loader(
        cfg,
        sampler_type=settings.SAMPLER,
        data_source=items,
        batch_size=settings.BATCH_SIZE,
        n_domain=settings.N_DOMAIN,
        n_ins=settings.N_INS,
        tfm=tfm,
        is_train=True,
        dataset_wrapper=wrapper,
    )


def _test_loader(cfg: CfgNode, items: list[Datum], tfm: Any, wrapper: type | None) -> DataLoader:
    return build_data_loader(
        cfg,
        sampler_type=cfg.DATALOADER.TEST.SAMPLER,
        data_source=items,
        batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
        tfm=tfm,
        is_train=False,
        dataset_wrapper=wrapper,
    )


class DatasetWrapper(Dataset):
    """Reads and transforms the images of a list of items.

    An item comes out as {"label", "domain", "impath", "index", "img"}. With DATALOADER.K_TRANSFORMS
    above 1, "img" is a list of that many random views (training only); with
    DATALOADER.RETURN_IMG0, "img0" is the image without augmentation, resized to INPUT.SIZE
    whatever its aspect ratio. If `transform` is a list, its i-th transform (from the second on)
    gives "img<i>" ("img2", ...).

    Training images stay in memory once decoded, up to DATALOADER.CACHE_MB; test images do not: an
    evaluation reads each just once.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data_source: list[Datum],
        transform: Any = None,
        is_train: bool = False,
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        cached = cache_bytes(cfg.DATALOADER.CACHE_MB) if is_train else 0
        self.images = ImageCache(cached, image_reader(cfg))
        if self.k_tfm > 1 and transform is None:
            raise ConfigError(
                f"DATALOADER.K_TRANSFORMS is {self.k_tfm}, but there is no transform: "
                "set INPUT.NO_TRANSFORM False, or K_TRANSFORMS 1."
            )
        interpolation = INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]
        steps = [Resize(cfg.INPUT.SIZE, interpolation=interpolation), ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = Compose(steps)

    def __len__(self) -> int:
        return len(self.data_source)

    @property
    def reader_identity(self) -> str:
        """What decides on the pixels beside the file; "" if images are read as everywhere."""
        reader = self.images.reader
        return "" if reader is None else getattr(reader, "identity", repr(reader))

    def prepare_workers(self, n_workers: int) -> None:
        """Decodes what the cache may hold, before `n_workers` processes start and share it."""
        self.images.prepare_workers([item.impath for item in self.data_source], n_workers)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        output = {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": idx,
        }
        img0 = self.images.read(item.impath)
        if isinstance(self.transform, list | tuple):
            for i, tfm in enumerate(self.transform):
                output["img" if i == 0 else f"img{i + 1}"] = self._transform_image(tfm, img0)
        elif self.transform is not None:
            output["img"] = self._transform_image(self.transform, img0)
        else:
            output["img"] = img0
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

    def _transform_image(self, tfm: Any, img0: Any) -> Any:
        views = [tfm(img0) for _ in range(self.k_tfm)]
        return views[0] if len(views) == 1 else views
