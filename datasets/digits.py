"""The embedded default: handwritten digits that ship with scikit-learn, written out as files."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
from PIL import Image

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import DataError, write_atomically
from dassl.utils.logger import get_logger
from dassl.utils.random_state import random_state_kept
from datasets.base import BenchmarkDataset, Split
from datasets.readers.roots import make_default_root

logger = get_logger(__name__)

CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE = 32  # pixels; the originals have 8 x 8, with 17 grey levels


@DATASET_REGISTRY.register()
class Digits(BenchmarkDataset):
    """1,797 images in `digits/images/<number and name>/<index>.png`, white on black.

    The originals are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin,
    C. Kaynak, UCI Machine Learning Repository, CC BY 4.0).
    """

    dataset_dir = "digits"
    image_dir = "images"
    split_file = "split_Digits.json"
    new_cnames = MappingProxyType(
        {f"{label}_{name}": name for label, name in enumerate(CLASSNAMES)}
    )
    template = "a photo of a {}."

    def find_folders(self, root: Path) -> None:
        """Needs no download, so the folder `data` of the first steps may still be lacking."""
        make_default_root(root)
        super().find_folders(root)

    def read_data(self) -> Split:
        try:
            write_images(Path(self.image_dir))
        except OSError as error:
            raise DataError(
                f"the digits cannot be written to {self.image_dir} ({error.strerror or error}); "
                "--root (DATASET.ROOT) must name a folder that can be written"
            ) from None
        return super().read_data()


def write_images(folder: Path) -> None:
    """Writes the images into class folders, unless that was done before."""
    done = folder / ".complete"
    if done.exists():
        return
    logger.info(f"Writing the handwritten digits of scikit-learn to {folder}")
    with random_state_kept():  # as for the runs after this one, which find the images
        from sklearn.datasets import load_digits  # draws random numbers when it is imported

        digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder) as scratch:
        part = Path(scratch) / "image.png"
        for index, (pixels, label) in enumerate(zip(digits.images, digits.target)):
            path = folder / f"{label}_{CLASSNAMES[label]}" / f"{index:04d}.png"
            if path.exists():  # whole, as it came in one step: from a run beside this one, say
                continue
            path.parent.mkdir(exist_ok=True)
            grey = np.rint(pixels * (255 / 16)).astype(np.uint8)
            Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(part)
            os.replace(part, path)
    if hasattr(os, "sync"):
        os.sync()  # once for all images; one after the other, a disk takes seconds
    write_atomically(done, lambda part: Path(part).write_text(f"{len(digits.target)}\n"))
