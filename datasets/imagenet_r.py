"""ImageNet-R: art, toys and other renditions (Hendrycks et al., arXiv 2006.16241)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY
from datasets.imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetVariant):
    """30,000 images of 200 classes in `imagenet-rendition/imagenet-r/<wnid>/`."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    other_places = (("imagenet-r", ""),)  # the archive in the root
