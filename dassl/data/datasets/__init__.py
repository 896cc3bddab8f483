"""Datasets: the items of a split, and how a configuration finds a dataset."""

from dassl.data.datasets.base_dataset import DatasetBase, Datum
from dassl.data.datasets.build import DATASET_REGISTRY, build_dataset, image_reader

__all__ = ["DATASET_REGISTRY", "DatasetBase", "Datum", "build_dataset", "image_reader"]
