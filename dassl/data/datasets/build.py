"""DATASET.NAME → dataset."""

from __future__ import annotations

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
