"""Pictures that Pillow opened are read as those in files are."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from dassl.utils import DataError
from prompts.pictures import PictureBatches

ORIENTATION = 274  # EXIF's tag
RAMP = np.linspace(0, 1, 24 * 32).reshape(24, 32)


def batches(dataset: str) -> PictureBatches:
    args = Namespace(dataset_config_file=f"{dataset}.yaml", trainer="CoOp", backbone="tiny")
    return PictureBatches(train.setup_cfg(args))


def kinds() -> dict[str, Image.Image]:
    """Images of 32 x 24 that `convert("RGB")` does not show as they are meant."""
    grey = Image.fromarray((255 * RAMP).astype(np.uint8))
    clear = Image.merge("RGBA", [grey, grey, grey, grey.transpose(Image.Transpose.ROTATE_180)])
    return {
        "16 bits.png": Image.fromarray((65535 * RAMP).astype(np.uint16)),
        "floats.tif": Image.fromarray(RAMP.astype(np.float32)),
        "clear.png": clear,
        "palette.png": grey.quantize(8),
        "cmyk.jpg": grey.convert("CMYK"),
    }


@pytest.mark.parametrize("name", [*kinds(), "turned.jpg"])
def test_own_images(name: str, tmp_path: Path):
    path = tmp_path / name
    if name == "turned.jpg":
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        Image.fromarray((255 * RAMP).astype(np.uint8)).save(path, exif=exif)
    else:
        kinds()[name].save(path)
    with Image.open(path) as image:
        in_file, opened = next(batches("folder")([str(path), image], 2))
    assert torch.equal(opened, in_file) and in_file.unique().numel() > 4
    if name in ("16 bits.png", "clear.png"):  # nothing of these is in the file alone
        assert torch.equal(next(batches("folder")([kinds()[name]], 1))[0], in_file)


def test_what_values_mean_is_not_guessed():
    image = Image.fromarray((1000 * RAMP).astype(np.float32))
    with pytest.raises(DataError, match=r"cannot be read: .* DATASET.VALUE_RANGE"):
        next(batches("folder")([image], 1))


def test_opened_images_are_one_s_own_whatever_a_run_was_trained_on():
    image = kinds()["clear.png"]
    (opened,) = next(batches("eurosat")([image], 1))
    assert torch.equal(opened, next(batches("folder")([image], 1))[0])
    assert not torch.equal(opened, next(batches("eurosat")([image.convert("RGB")], 1))[0])
