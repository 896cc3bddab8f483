"""UCF101: middle frames of videos of 101 actions (Soomro et al., arXiv 1212.0402)."""

from __future__ import annotations

import random
import re

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import DataError
from datasets.base import BenchmarkDataset, Split
from datasets.readers.annotations import class_number, read_rows


@DATASET_REGISTRY.register()
class UCF101(BenchmarkDataset):
    """13,320 images in `ucf101/UCF-101-midframes/<Action_Name>/v_<ActionName>_g<n>_c<n>.jpg`.

    `ucfTrainTestlist/classInd.txt` numbers the actions from 1, `trainlist01.txt` and
    `testlist01.txt` name videos, such as `YoYo/v_YoYo_g01_c01.avi`, a frame of which is the image.
    """

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    template = "a photo of a person doing {}."

    def build_split(self) -> Split:
        """A fifth of the training images becomes val."""
        rows = read_rows(self.annotation("ucfTrainTestlist/classInd.txt"), 2)
        labels = {action: class_number("classInd.txt", number) for number, action in rows}
        trainval = self.read_list("trainlist01.txt", labels)
        test = self.read_list("testlist01.txt", labels)
        return *self.split_trainval(trainval, rng=random.Random(1)), test

    def read_list(self, name: str, labels: dict[str, int]) -> list[Datum]:
        """Returns the frames of the videos that a list names."""
        path = self.annotation(f"ucfTrainTestlist/{name}")
        items = []
        for video, *_ in (row[0].split() for row in read_rows(path, 1)):
            action, _, file = video.partition("/")
            if action not in labels:
                raise DataError(f"{path} has the action {action}, which classInd.txt lacks")
            words = "_".join(re.findall("[A-Z][^A-Z]*", action))
            frame = f"{self.image_dir}/{words}/{file.removesuffix('.avi')}.jpg"
            items.append(Datum(frame, labels[action], classname=words))
        return items
