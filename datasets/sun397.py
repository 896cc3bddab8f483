"""SUN397: photographs of 397 kinds of scenes (Xiao et al., 2010)."""

from __future__ import annotations

import random

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import DataError
from datasets.base import BenchmarkDataset, Split
from datasets.readers.annotations import read_rows


@DATASET_REGISTRY.register()
class SUN397(BenchmarkDataset):
    """39,700 images in `sun397/SUN397/<initial>/<scene>[/<kind>]/sun_<code>.jpg`.

    `ClassName.txt` gives the classes in label order, `Training_01.txt` and `Testing_01.txt` the
    first of the official partitions; their lines are paths such as `/a/abbey/sun_abc.jpg`.
    """

    dataset_dir = "sun397"
    image_dir = "SUN397"
    other_places = (("SUN397", ""),)  # torchvision
    landmark = "a"
    split_file = "split_zhou_SUN397.json"
    split_blob = "8d5725db8f70bcf02245665304f863e68f96a24c"
    template = "a photo of a {}."

    def build_split(self) -> Split:
        """A fifth of the training images becomes val."""
        folders = [row[0] for row in self.read_lines("ClassName.txt")]
        labels = {folder: label for label, folder in enumerate(folders)}
        trainval = self.read_list("Training_01.txt", labels)
        test = self.read_list("Testing_01.txt", labels)
        return *self.split_trainval(trainval, rng=random.Random(1)), test

    def read_lines(self, name: str) -> list[list[str]]:
        return read_rows(self.annotation(name, f"SUN397/{name}", f"Partitions/{name}"), 1)

    def read_list(self, name: str, labels: dict[str, int]) -> list[Datum]:
        """Returns the images of a partition."""
        items = []
        for (path,) in self.read_lines(name):
            folder = path.rpartition("/")[0]
            if folder not in labels:
                raise DataError(f"{name} has the class {folder}, which ClassName.txt lacks")
            items.append(Datum(self.image_dir + path, labels[folder], classname=scene(folder)))
        return items


def scene(folder: str) -> str:
    """Turns "/a/apartment_building/outdoor" into "outdoor apartment_building"."""
    return " ".join(reversed(folder.split("/")[2:]))
