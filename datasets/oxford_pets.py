"""Oxford-IIIT Pets: photographs of 37 breeds of cats and dogs (Parkhi et al., 2012)."""

from __future__ import annotations

import random

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils.files import PathLike
from datasets.base import BenchmarkDataset, Split
from datasets.readers.annotations import class_number, read_rows


@DATASET_REGISTRY.register()
class OxfordPets(BenchmarkDataset):
    """7,349 images in `oxford_pets/images/<breed>_<number>.jpg`.

    `annotations/trainval.txt` and `annotations/test.txt` have lines such as `Abyssinian_100 1 1 1`:
    file, class counted from 1, cat or dog, breed counted among those.
    """

    dataset_dir = "oxford_pets"
    image_dir = "images"
    other_places = (("oxford-iiit-pet", "images"),)  # torchvision
    split_file = "split_zhou_OxfordPets.json"
    template = "a photo of a {}, a type of pet."

    def build_split(self) -> Split:
        """A fifth of trainval becomes val."""
        trainval = self.read_list(self.annotation("annotations/trainval.txt"))
        test = self.read_list(self.annotation("annotations/test.txt"))
        return *self.split_trainval(trainval, rng=random.Random(1)), test

    def read_list(self, path: PathLike) -> list[Datum]:
        """Returns the images of a list, named after the breed in their file names."""
        return [
            Datum(
                f"{self.image_dir}/{name}.jpg",
                class_number(path, number),
                classname=name.rpartition("_")[0].lower(),
            )
            for name, number, *_ in read_rows(path, 4)
        ]
