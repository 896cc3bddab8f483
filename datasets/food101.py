"""Food101: photographs of 101 dishes (Bossard et al., 2014)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import BenchmarkDataset


@DATASET_REGISTRY.register()
class Food101(BenchmarkDataset):
    """101,000 images in `food-101/images/<dish>/<number>.jpg`."""

    dataset_dir = "food-101"
    image_dir = "images"
    other_places = (("food101", "images"),)  # as the hub's archive is called
    split_file = "split_zhou_Food101.json"
    split_blob = "39557040ee6501bd32aa8b5dfd75f7941a32f0a7"
    template = "a photo of {}, a type of food."
