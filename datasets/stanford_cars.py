"""Stanford Cars: photographs of 196 models of cars (Krause et al., 2013)."""

from __future__ import annotations

import random

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import BenchmarkDataset, Split
from datasets.readers.annotations import class_number, read_mat


@DATASET_REGISTRY.register()
class StanfordCars(BenchmarkDataset):
    """16,185 images in `stanford_cars/cars_train/<number>.jpg` and `.../cars_test/<number>.jpg`.

    `devkit/cars_meta.mat` holds the class names, `devkit/cars_train_annos.mat` and
    `cars_test_annos_withlabels.mat` the class of each image, counted from 1.
    """

    dataset_dir = "stanford_cars"
    image_dir = ""  # the split file names the folder
    other_places = (("stanford_cars/stanford_cars", ""),)  # torchvision, one root per dataset
    landmark = "cars_train"
    split_file = "split_zhou_StanfordCars.json"
    template = "a photo of a {}."

    def build_split(self) -> Split:
        """A fifth of the training images becomes val."""
        trainval = self.read_list("cars_train", "devkit/cars_train_annos.mat")
        test = self.read_list(
            "cars_test", "cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat"
        )
        return *self.split_trainval(trainval, rng=random.Random(1)), test

    def read_list(self, folder: str, *annotations: str) -> list[Datum]:
        """Returns the images that the first of the annotation files that exists lists."""
        meta = read_mat(self.annotation("devkit/cars_meta.mat"), "class_names")
        names = [year_first(str(name)) for name in meta]
        path = self.annotation(*annotations)
        return [
            Datum(f"{self.image_dir}/{folder}/{row['fname']}", label, classname=names[label])
            for row in read_mat(path, "annotations", "fname", "class")
            for label in [class_number(path, row["class"], len(names))]
        ]


def year_first(name: str) -> str:
    """Turns "Audi TTS Coupe 2012" into "2012 Audi TTS Coupe"."""
    model, _, year = name.rpartition(" ")
    return f"{year} {model}"
