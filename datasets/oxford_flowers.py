"""Oxford Flowers: photographs of 102 flowers (Nilsback and Zisserman, 2008)."""

from __future__ import annotations

import random

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import DataError, MissingFileError, read_json
from datasets.base import BenchmarkDataset, Split, shipped_classnames, split_classes
from datasets.readers.annotations import class_number, read_mat


@DATASET_REGISTRY.register()
class OxfordFlowers(BenchmarkDataset):
    """8,189 images in `oxford_flowers/jpg/image_<number>.jpg`.

    `imagelabels.mat` holds the class of each image, counted from 1; `cat_to_name.json` the names
    of the classes. Without the latter, which torchvision does not fetch, the names are ours.
    """

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    other_places = (("flowers-102", "jpg"),)  # torchvision
    split_file = "split_zhou_OxfordFlowers.json"
    template = "a photo of a {}, a type of flower."

    def build_split(self) -> Split:
        """50% train, 20% val, 30% test, class by class in the order of their first image."""
        names = self.class_names()
        classes: dict[int, list[Datum]] = {}
        source = self.annotation("imagelabels.mat")
        for index, number in enumerate(read_mat(source, "labels")):
            path = f"{self.image_dir}/image_{index + 1:05d}.jpg"
            label = class_number(source, number, len(names))
            classes.setdefault(label, []).append(Datum(path, label, classname=names[label]))
        return split_classes(classes.values(), rng=random.Random(1))

    def class_names(self) -> list[str]:
        try:
            source = self.annotation("cat_to_name.json")
        except MissingFileError:
            return shipped_classnames(type(self).dataset_dir)
        names = read_json(source)
        numbers = [str(number) for number in range(1, len(names) + 1)]
        if not isinstance(names, dict) or set(names) != set(numbers):
            raise DataError(f"{source} has no names for the classes 1, 2, ...; fetch it anew")
        return [str(names[number]) for number in numbers]
