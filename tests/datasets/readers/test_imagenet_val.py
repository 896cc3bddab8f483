"""ImageNet's flat folder of validation images, with each of the lists that tell what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dassl.utils import DataError, MissingFileError
from tests.datasets import fixtures
from tests.datasets.build import build


def flatten_val(folder: Path) -> list[tuple[str, int]]:
    """Moves the val images out of their class folders; returns (name, label), by name."""
    val = folder / "images" / "val"
    truth = []
    order = sorted(range(1000), key=lambda label: (label * 37) % 1000)
    for index, label in enumerate(order, start=1):
        wnid = fixtures.WNIDS[label]
        name = f"ILSVRC2012_val_{index:08d}"
        (val / wnid / f"{wnid}_0.JPEG").rename(val / f"{name}.JPEG")
        (val / wnid).rmdir()
        truth.append((name, label))
    return truth


def write_truth(kind: str, folder: Path, truth: list[tuple[str, int]]) -> None:
    if kind == "kaggle":
        lines = [f"{name},{fixtures.WNIDS[label]} 85 1 499 272" for name, label in truth[::-1]]
        text = "\n".join(["ImageId,PredictionString", *lines])
        (folder / "LOC_val_solution.csv").write_text(text)
    elif kind == "wnids":
        lines = [f"{name}.JPEG {fixtures.WNIDS[label]}" for name, label in truth]
        (folder / "val.txt").write_text("\n".join(lines))
    elif kind == "labels":
        (folder / "val.txt").write_text("\n".join(f"{n}.JPEG {label}" for n, label in truth))
    else:
        devkit = folder / "ILSVRC2012_devkit_t12" / "data"
        devkit.mkdir(parents=True)
        numbers = {label: (label * 7) % 1000 + 1 for label in range(1000)}  # an order of its own
        lines = [str(numbers[label]) for _, label in truth]
        (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines))
        by_number = sorted(numbers.items(), key=lambda pair: pair[1])
        synsets = [(n, fixtures.WNIDS[label], "words") for label, n in by_number]
        inner = [(1001, "n00001740", "entity")]  # the file also has groups of classes
        kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
        savemat(devkit / "meta.mat", {"synsets": np.array(synsets + inner, dtype=kinds)})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kaggle", "wnids", "labels", "devkit"])
def test_flat_val_folder(kind, tmp_path):
    folder = fixtures.make("ImageNet", tmp_path, per_class=1)
    truth = flatten_val(folder)
    with pytest.raises(MissingFileError, match=r"LOC_val_solution\.csv"):
        build("ImageNet", tmp_path)
    write_truth(kind, folder, truth)
    dataset = build("ImageNet", tmp_path)
    assert {(Path(item.impath).stem, item.label) for item in dataset.test} == set(truth)
    assert [item.label for item in dataset.test] == list(range(1000))
    assert all(item.classname == dataset.lab2cname[item.label] for item in dataset.test)


def test_ground_truth_that_lacks_images(tmp_path):
    folder = fixtures.make("ImageNet", tmp_path, per_class=1)
    write_truth("wnids", folder, flatten_val(folder)[5:])
    with pytest.raises(DataError, match="does not tell the class of ILSVRC2012_val_00000001"):
        build("ImageNet", tmp_path)
