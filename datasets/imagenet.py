"""ImageNet: 1,000 kinds of objects (Deng et al., 2009; Russakovsky et al., arXiv 1409.0575)."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import DataError
from dassl.utils.files import PathLike, listed
from datasets.base import BenchmarkDataset, Split
from datasets.readers.annotations import read_rows
from datasets.readers.folder_index import FLAT, list_folders
from datasets.readers.imagenet_val import sort_flat_val
from datasets.resources import IMAGENET_CLASSNAMES


class ImageNetFolders(BenchmarkDataset):
    """What ImageNet and its variants share: folders called after WordNet ids (wnids)."""

    @staticmethod
    def read_classnames(text_file: PathLike) -> dict[str, str]:
        """Reads lines of a wnid and a name; returns {wnid: name} in the order of the file.

        Two names occur twice (missile, sunglasses): only wnids and labels tell classes apart.
        """
        return dict(read_rows(Path(text_file), 2))

    def class_names(self) -> dict[str, str]:
        """Returns {wnid: name}, from `classnames.txt` beside the data if there is one."""
        own = Path(self.dataset_dir) / "classnames.txt"
        return self.read_classnames(own if own.is_file() else IMAGENET_CLASSNAMES)

    def items(
        self, folder: PathLike, images: dict[str, list[str]], wnids: list[str] | None = None
    ) -> list[Datum]:
        """Returns the images below `folder`, labels counted over the class folders in their order.

        Args:
            folder: holds the class folders.
            images: {class folder: image names}.
            wnids: which classes the folders hold, where their names do not tell.
        """
        wnids = wnids or list(images)
        names = self.class_names()
        unknown = [wnid for wnid in wnids if wnid not in names]
        if unknown:
            raise DataError(
                f"{folder} holds {listed(unknown)}, which ImageNet does not know; expected folders "
                "such as n01440764. Move everything else out of it."
            )
        return [
            Datum(f"{folder}/{inner}/{image}", label, classname=names[wnid])
            for label, (inner, wnid) in enumerate(zip(images, wnids))
            for image in images[inner]
        ]


@DATASET_REGISTRY.register()
class ImageNet(ImageNetFolders):
    """1,281,167 images in `imagenet/images/train/<wnid>/`, 50,000 in `imagenet/images/val/`.

    The official validation images, in class folders or flat with a list of what they show (see
    `sort_flat_val`), serve for validation and for testing: evaluate the last epoch.
    """

    dataset_dir = "imagenet"
    image_dir = "images"
    other_places = (("imagenet", ""), ("imagenet", "ILSVRC/Data/CLS-LOC"))  # torchvision, Kaggle
    landmark = "train"
    template = "a photo of a {}."
    max_val_shots = 0

    def read_data(self) -> Split:
        self.require_folder(self.image_dir)
        train_dir, val_dir = f"{self.image_dir}/train", f"{self.image_dir}/val"
        train = list_folders(self.dataset_dir, train_dir)
        val = list_folders(self.dataset_dir, val_dir)
        if FLAT in val:
            test = self.flat_items(val_dir, val[FLAT], list(train))
        elif val.keys() != train.keys():
            differing = sorted(val.keys() ^ train.keys())
            raise DataError(
                f"{train_dir} and {val_dir} must hold the same class folders, but only one of them "
                f"has {listed(differing)}"
            )
        else:
            test = self.items(val_dir, val)
        return self.items(train_dir, train), test, test

    def flat_items(self, folder: str, images: list[str], wnids: list[str]) -> list[Datum]:
        """Returns the images of a val folder without class folders, in the order of the classes."""
        names = self.class_names()
        labels = {wnid: label for label, wnid in enumerate(wnids)}
        found = sort_flat_val(images, list(names), self.dataset_dir, self.image_dir)
        items = [
            Datum(f"{folder}/{image}", labels[wnid], classname=names[wnid])
            for image, wnid in found.items()
            if wnid in labels  # a train folder with some of the classes is fine
        ]
        return sorted(items, key=lambda item: item.label)


class ImageNetVariant(ImageNetFolders):
    """Test images for models trained on ImageNet; they stand in for training images as well.

    Labels are counted over the folders that are there: with the 200 classes of ImageNet-A and
    ImageNet-R, a model chooses among those 200 alone.
    """

    template = "a photo of a {}."
    few_shot = False

    def read_data(self) -> Split:
        self.require_folder(self.image_dir)
        test = self.items(self.image_dir, list_folders(self.dataset_dir, self.image_dir))
        return test, [], test
