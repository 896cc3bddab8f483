"""Describable Textures (DTD): 47 kinds of texture (Cimpoi et al., arXiv 1311.3618)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import BenchmarkDataset


@DATASET_REGISTRY.register()
class DescribableTextures(BenchmarkDataset):
    """5,640 images in `dtd/images/<class>/<class>_<number>.jpg`."""

    dataset_dir = "dtd"
    image_dir = "images"
    other_places = (("dtd", "dtd/images"),)  # torchvision
    split_file = "split_zhou_DescribableTextures.json"
    template = "{} texture."
