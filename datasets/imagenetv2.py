"""ImageNetV2: new images for ImageNet's classes (Recht et al., arXiv 1902.10811)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import DataError
from dassl.utils.text import counted
from datasets.base import Split
from datasets.imagenet import ImageNetVariant
from datasets.readers.folder_index import list_folders


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetVariant):
    """10,000 images in `imagenetv2/imagenetv2-matched-frequency-format-val/<label>/`, 0 to 999."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    other_places = (("imagenetv2-matched-frequency-format-val", ""),)  # the archive in the root

    def read_data(self) -> Split:
        self.require_folder(self.image_dir)
        images = list_folders(self.dataset_dir, self.image_dir)
        wnids = list(self.class_names())
        if images.keys() != {str(label) for label in range(len(wnids))}:
            raise DataError(
                f"{self.image_dir} holds {counted(len(images), 'folder')}; expected "
                f"{len(wnids):,}, called 0 to {len(wnids) - 1}. Unpack the dataset anew."
            )
        by_label = {str(label): images[str(label)] for label in range(len(wnids))}
        test = self.items(self.image_dir, by_label, wnids)
        return test, [], test
