"""What is wrong with a split is named; names are found in every form in which they are stored."""

from __future__ import annotations

import itertools
import shutil
import unicodedata
from pathlib import Path

import pytest

from dassl.utils import DataError, MissingFileError
from tests.datasets.build import SPLIT, build, change, rows

# --- splits ---------------------------------------------------------------------------------------


def test_missing_images_are_counted_and_named(eurosat):
    lists = change(eurosat, lambda lists: None)
    for path, _, _ in lists["val"][:4]:
        (eurosat / "eurosat" / "2750" / path).unlink()
    first = lists["val"][0][0]
    expected = rf"4 of the 90 images that .*{SPLIT} names are missing: .*{first}.* 1 more\. Unpack"
    with pytest.raises(MissingFileError, match=expected):
        build("EuroSAT", eurosat)


def test_missing_class_folder(eurosat):
    shutil.rmtree(eurosat / "eurosat" / "2750" / "Forest")
    with pytest.raises(MissingFileError, match=r"9 of the 90 images .*Forest"):
        build("EuroSAT", eurosat)


def test_empty_class_folder(eurosat, monkeypatch):
    monkeypatch.setattr("datasets.base.SPLITS", eurosat)
    (eurosat / "eurosat" / SPLIT).unlink()
    for path in (eurosat / "eurosat" / "2750" / "River").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"class folder .*River.* holds no images"):
        build("EuroSAT", eurosat)


def test_too_few_images_to_split(eurosat, monkeypatch):
    monkeypatch.setattr("datasets.base.SPLITS", eurosat)
    (eurosat / "eurosat" / SPLIT).unlink()
    for path in sorted((eurosat / "eurosat" / "2750" / "River").iterdir())[2:]:
        path.unlink()
    with pytest.raises(DataError, match=r"too few images to split .*, 2: add some to .*River"):
        build("EuroSAT", eurosat)


def test_label_gap(eurosat):
    def drop(lists: dict[str, list]) -> None:
        lists["train"] = [row for row in lists["train"] if row[1] not in (2, 5)]

    change(eurosat, drop)
    with pytest.raises(DataError, match=r"no training images for label 2, 5; labels must count"):
        build("EuroSAT", eurosat)


def test_labels_counted_from_one(eurosat):
    def shift(lists: dict[str, list]) -> None:
        for row in itertools.chain(*lists.values()):
            row[1] += 1

    change(eurosat, shift)
    with pytest.raises(DataError, match=r"no training images for label 0"):
        build("EuroSAT", eurosat)


def test_label_with_two_names(eurosat):
    change(eurosat, lambda lists: lists["test"][0].__setitem__(2, "Woods"))
    with pytest.raises(DataError, match=r"calls label 0 both 'Annual Crop Land' and 'Woods'"):
        build("EuroSAT", eurosat)


def test_image_in_two_parts(eurosat):
    change(eurosat, lambda lists: lists["test"].extend(lists["train"][:2]))
    with pytest.raises(
        DataError, match=r"2 images in more than one of train, val and test: /.*jpg"
    ):
        build("EuroSAT", eurosat)


def test_no_training_images(eurosat):
    change(eurosat, lambda lists: lists.update(train=[]))
    with pytest.raises(DataError, match="has no training images"):
        build("EuroSAT", eurosat)


@pytest.mark.parametrize("content", ["[1, 2]", '{"train": []}', '{"train": [["a"]]}', "{", "3"])
def test_file_that_is_no_split(content, eurosat):
    (eurosat / "eurosat" / SPLIT).write_text(content)
    with pytest.raises(DataError, match=SPLIT):
        build("EuroSAT", eurosat)


# --- names ----------------------------------------------------------------------------------------


def test_backslashes_in_a_split_file(eurosat):
    expected = rows(build("EuroSAT", eurosat).train_x, eurosat)

    def windows(lists: dict[str, list]) -> None:
        for row in itertools.chain(*lists.values()):
            row[0] = row[0].replace("/", "\\")

    change(eurosat, windows)
    dataset = build("EuroSAT", eurosat)
    assert rows(dataset.train_x, eurosat) == expected
    assert all(Path(item.impath).is_file() for item in dataset.test)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_file", ["NFC", "NFD"])
def test_accents_in_either_form(on_disk, in_file, eurosat):
    images = eurosat / "eurosat" / "2750"

    def rename(lists: dict[str, list]) -> None:
        for row in itertools.chain(*lists.values()):
            folder, _, file = row[0].partition("/")
            new = f"Flüsse und Höhen/{folder}/日本 {file}"
            target = images / unicodedata.normalize(on_disk, new)
            target.parent.mkdir(parents=True, exist_ok=True)
            (images / row[0]).rename(target)
            row[0] = unicodedata.normalize(in_file, new)

    change(eurosat, rename)
    dataset = build("EuroSAT", eurosat, NUM_SHOTS=1)
    assert all(Path(item.impath).is_file() for item in dataset.test + dataset.train_x)
    again = build("EuroSAT", eurosat, NUM_SHOTS=1)
    assert rows(again.train_x, eurosat) == rows(dataset.train_x, eurosat)
