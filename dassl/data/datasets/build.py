"""DATASET.NAME → dataset."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from yacs.config import CfgNode

from dassl.data.datasets.base_dataset import DatasetBase
from dassl.utils.logger import get_logger
from dassl.utils.registry import Registry

logger = get_logger(__name__)

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> DatasetBase:
    """Builds the dataset that DATASET.NAME stands for.

    Raises:
        UnknownNameError: (a KeyError) there is none of that name.
    """
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        logger.info(f"Loading dataset: {cfg.DATASET.NAME}")
    return dataset(cfg)


def image_reader(cfg: CfgNode) -> Callable[[str], Image.Image] | None:
    """Returns what the dataset of a configuration reads its images with; None: `read_image`.

    The configuration tells, not the items: whoever builds a loader from both reads them alike.
    """
    name = cfg.DATASET.NAME
    dataset = DATASET_REGISTRY.get(name) if name in DATASET_REGISTRY else None
    chosen = getattr(dataset, "image_reader", None)
    return chosen(cfg) if chosen is not None else None
