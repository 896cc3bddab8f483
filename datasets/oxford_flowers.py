"""Oxford Flowers: photographs of 102 flowers (Nilsback and Zisserman, 2008)."""

from __future__ import annotations

import random

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import MissingFileError, read_json
from datasets.base import BenchmarkDataset, Split, shipped_classnames
from datasets.readers.annotations import read_mat


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
        classes: dict[int, list[str]] = {}
        for index, number in enumerate(read_mat(self.annotation("imagelabels.mat"), "labels")):
            path = f"{self.image_dir}/image_{index + 1:05d}.jpg"
            classes.setdefault(int(number), []).append(path)
        rng = random.Random(1)
        train: list[Datum] = []
        val: list[Datum] = []
        test: list[Datum] = []
        for number, paths in classes.items():
            rng.shuffle(paths)
            items = [Datum(path, number - 1, classname=names[number - 1]) for path in paths]
            n_train, n_val = round(len(items) * 0.5), round(len(items) * 0.2)
            train += items[:n_train]
            val += items[n_train : n_train + n_val]
            test += items[n_train + n_val :]
        return train, val, test

    def class_names(self) -> list[str]:
        try:
            names = read_json(self.annotation("cat_to_name.json"))
        except MissingFileError:
            return shipped_classnames(type(self).dataset_dir)
        return [names[str(number)] for number in range(1, len(names) + 1)]
