"""Caltech101: photographs of 100 kinds of objects (Fei-Fei et al., 2004)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import BenchmarkDataset

IGNORED = ("BACKGROUND_Google", "Faces_easy")
NEW_CNAMES = {  # folder → name in the prompt
    "airplanes": "airplane",
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
}


@DATASET_REGISTRY.register()
class Caltech101(BenchmarkDataset):
    """8,242 images in `caltech-101/101_ObjectCategories/<class>/image_<number>.jpg`."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    other_places = (("caltech101", "101_ObjectCategories"),)  # torchvision
    split_file = "split_zhou_Caltech101.json"
    ignored = IGNORED
    new_cnames = NEW_CNAMES
    template = "a photo of a {}."
