"""Images of your own: what bad input gets."""

from __future__ import annotations

import json

import pytest

from dassl.utils import DataError, MissingFileError
from tests.datasets.helpers_folder import (
    csv_rows,
    draw,
    load,
    make_classes,
    make_root,
    make_split,
    write_csv,
)


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


# --- what bad input gets --------------------------------------------------------------------------


def test_no_root(tmp_path):
    with pytest.raises(DataError, match=r"DATASET.ROOT is empty.*--root"):
        load()
    with pytest.raises(MissingFileError, match=r"gone, which does not exist"):
        load(tmp_path / "gone")


def test_no_class_folders(tmp_path):
    draw(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"has no class folders; expected <class>/\*.jpg"):
        load(tmp_path)


def test_one_class(tmp_path):
    with pytest.raises(DataError, match=r"has 1 class \(crow\)"):
        load(make_classes(tmp_path, 5, ("crow",)))


@pytest.mark.parametrize("part", ["", "train", "test"])
def test_empty_class(tmp_path, part):
    root = make_split(tmp_path, train=3, test=3) if part else make_classes(tmp_path)
    (root / part / "zander").mkdir()
    (root / part / "zander" / "notes.txt").write_text("none yet")
    with pytest.raises(DataError, match=r"zander holds no images \(1 other file: notes.txt\)"):
        load(root)


def test_too_few_to_split(tmp_path):
    make_classes(tmp_path, 2, ("crow", "jay"))
    make_classes(tmp_path, 3, ("wren",))
    with pytest.raises(DataError, match=r"classes with fewer than 3 images \(2\).*crow, jay"):
        load(tmp_path)


@pytest.mark.parametrize("part", ["val", "test"])
def test_class_without_training_images(tmp_path, part):
    root = make_split(tmp_path, train=3, val=3, test=3)
    make_classes(root / part, 3, ("zander",))
    with pytest.raises(
        DataError, match=rf"{part} has classes that train does not have \(1\): zander"
    ):
        load(root)


@pytest.mark.parametrize(("there", "needed"), [("train", "test"), ("test", "train")])
def test_half_a_split(tmp_path, there, needed):
    with pytest.raises(DataError, match=f"no {needed} folder; add {needed}/<class>/"):
        load(make_split(tmp_path, **{there: 3}))


def test_csv_that_is_not_there(root):
    with pytest.raises(MissingFileError, match=r"DATASET.CSV is 'gone.csv', which is no file"):
        load(root, CSV="gone.csv")


@pytest.mark.parametrize("header", ["photo,label", "path", "", "a b c"])
def test_csv_without_the_columns(root, header):
    file = write_csv(root / "c.csv", csv_rows(), header)
    with pytest.raises(DataError, match="expected a first line path,label or path,label,split"):
        load(root, CSV=str(file))


def test_csv_in_another_encoding(root):
    (root / "c.csv").write_bytes("path,label\nzaunkönig.jpg,wren\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load(root, CSV="c.csv")


def test_csv_that_names_missing_files(root):
    lines = [*csv_rows(), *(f"gone/{i}.jpg,crow,train" for i in range(5))]
    file = write_csv(root / "c.csv", lines)
    expected = r"5 of the 13 images .*: gone/0.jpg, gone/1.jpg, gone/2.jpg and 2 more"
    with pytest.raises(MissingFileError, match=expected):
        load(root, CSV=str(file))


@pytest.mark.parametrize("again", ["crow/00.jpg,crow,test", "./crow/00.jpg,jay,train"])
def test_csv_that_names_an_image_twice(root, again):
    file = write_csv(root / "c.csv", [*csv_rows(), again])
    with pytest.raises(DataError, match=r"names images more than once \(1\): .*crow/00.jpg"):
        load(root, CSV=str(file))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("crow/00.jpg,crow,exam", r"line 2: split is 'exam'; expected one of train"),
        ("crow/00.jpg,crow", r"line 2: split is ''"),
        ("crow/00.jpg,,train", "line 2: path or label is empty"),
        (",crow,train", "line 2: path or label is empty"),
    ],
)
def test_csv_with_a_bad_line(root, line, message):
    with pytest.raises(DataError, match=message):
        load(root, CSV=str(write_csv(root / "c.csv", [line, *csv_rows()[1:]])))


def test_csv_without_test_images(root):
    lines = [line.replace("TEST", "train") for line in csv_rows()]
    with pytest.raises(DataError, match="assigns no image to test"):
        load(root, CSV=str(write_csv(root / "c.csv", lines)))


@pytest.mark.parametrize(("one", "other", "gap"), [("1", "2", "0"), ("0", "3", "1, 2")])
def test_label_gap(root, one, other, gap):
    lines = [
        line.replace(",crow,", f",{one},").replace(",jay,", f",{other},") for line in csv_rows()
    ]
    with pytest.raises(DataError, match=f"without {gap}; count from 0"):
        load(root, CSV=str(write_csv(root / "c.csv", lines)))


@pytest.mark.parametrize("template", ["a photo", "a {} of a {}", "a photo of a {name}", "a {{}}"])
def test_template_without_place_for_the_name(tmp_path, template):
    with pytest.raises(DataError, match=r"DATASET.TEMPLATE is .*; expected a text with one \{\}"):
        load(tmp_path, TEMPLATE=template)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["a", "b", "c"], DataError, "has 3 names, but the data has 4 classes: crow"),
        ("a,b,c,d,e", DataError, "has 5 names"),
        (["a", "b", "c", " "], DataError, "expected names in label order"),
        (7, DataError, "DATASET.CLASSNAMES is 7; expected"),
        ("gone.txt", MissingFileError, "'gone.txt', which is no file"),
        ("wrong.json", DataError, r"names classes .* \(1\): crowe. Did you mean 'crow'\?"),
    ],
)
def test_bad_class_names(tmp_path, given, error, message):
    root = make_classes(tmp_path, 3)
    (root / "wrong.json").write_text(json.dumps({"crowe": "a"}))
    with pytest.raises(error, match=message):
        load(root, CLASSNAMES=given)
