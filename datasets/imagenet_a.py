"""ImageNet-A: natural images that fool classifiers (Hendrycks et al., arXiv 1907.07174)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetVariant):
    """7,500 images of 200 classes in `imagenet-adversarial/imagenet-a/<wnid>/`."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    other_places = (("imagenet-a", ""),)  # the archive in the root
