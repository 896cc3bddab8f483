"""FGVC-Aircraft: photographs of 100 aircraft variants (Maji et al., arXiv 1306.5151)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import DataError
from datasets.base import BenchmarkDataset, Split
from datasets.readers.annotations import read_rows


@DATASET_REGISTRY.register()
class FGVCAircraft(BenchmarkDataset):
    """10,000 images in `fgvc_aircraft/images/<number>.jpg`; the split is the dataset's own.

    `variants.txt` gives the classes in label order, `images_variant_{train,val,test}.txt` the
    split in lines such as `0034309 707-320`. The folder is the `data` folder of the archive.
    """

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    other_places = (("fgvc-aircraft-2013b/data", "images"),)  # torchvision
    template = "a photo of a {}, a type of aircraft."

    def build_split(self) -> Split:
        names = [row[0] for row in read_rows(self.annotation("variants.txt"), 1)]
        labels = {name: label for label, name in enumerate(names)}
        return tuple(self.read_list(part, labels) for part in ("train", "val", "test"))

    def read_list(self, part: str, labels: dict[str, int]) -> list[Datum]:
        """Returns the images of `images_variant_<part>.txt`."""
        path = self.annotation(f"images_variant_{part}.txt")
        rows = read_rows(path, 2)
        unknown = {name for _, name in rows} - labels.keys()
        if unknown:
            raise DataError(f"{path} has the variant {min(unknown)}, which variants.txt lacks")
        return [
            Datum(f"{self.image_dir}/{number}.jpg", labels[name], classname=name)
            for number, name in rows
        ]
