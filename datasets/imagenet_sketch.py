"""ImageNet-Sketch: drawings of ImageNet's classes (Wang et al., arXiv 1905.13549)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    """50,889 images in `imagenet-sketch/images/<wnid>/`."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
    other_places = (("imagenet-sketch", "sketch"),)  # the folder as the archive calls it
