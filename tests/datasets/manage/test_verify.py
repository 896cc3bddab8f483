"""`python -m datasets verify`: what is right, and what is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import datasets.__main__ as cli
from datasets import base
from datasets.manage import verify
from datasets.manage.catalog import catalog
from tests.datasets import fixtures
from tests.datasets.manage.helpers import check, overwrite, run


def own_split(root: Path, change, name="DescribableTextures", folder="dtd") -> Path:
    """Writes the official split, changed, as a split file beside the data."""
    lists = fixtures.official_split(name)
    change(lists)
    path = root / folder / f"split_zhou_{name}.json"
    path.write_text(json.dumps(lists), encoding="utf-8")
    return path


# --- verify: what is right ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "met"), [("DescribableTextures", "all 15 published"), ("OxfordPets", "all 15")]
)
def test_complete_data_are_ok(good, capsys, name, met):
    code, out = check(capsys, good, name)
    assert code == 0 and f"{name}: OK" in out and met in out


def test_digits_are_written_by_download_and_ok(tmp_path, capsys):
    assert run("download", "Digits", "--root", tmp_path / "data") == 0
    code, out = check(capsys, tmp_path / "data", "Digits", "--full")
    assert code == 0 and "1,797 of 1,797 decoded" in out


@pytest.mark.slow
def test_eurosat_with_all_27000_images(tmp_path, capsys):
    fixtures.make("EuroSAT", tmp_path)
    code, out = check(capsys, tmp_path, "EuroSAT", "--seeds", "1", "2")
    assert code == 0 and "13,500 train, 5,400 val, 8,100 test" in out
    assert "all 10 published samples of seeds 1, 2 are met" in out


def test_torchvision_layout(root, capsys):
    """torchvision unpacks the archive's dtd folder into a folder dtd."""
    (root / "dtd").rename(root / "inner")
    (root / "dtd").mkdir()
    (root / "inner").rename(root / "dtd" / "dtd")
    code, out = check(capsys, root)
    assert code == 0 and "all 15 published" in out


def test_verify_says_what_it_found_and_nothing_else(good, capsys):
    run("verify", "DescribableTextures", "--root", good)
    lines = capsys.readouterr().out.splitlines()
    found = ["split", "classes", "files", "images", "few-shot"]
    assert [line.split()[0] for line in lines[1:-1]] == found
    assert (lines[0], lines[-1]) == ("DescribableTextures", "DescribableTextures: OK")


def test_what_to_type_can_be_typed_where_a_folder_has_a_blank(tmp_path, capsys):
    (tmp_path / "my data").mkdir()
    code, out = check(capsys, tmp_path / "my data")
    assert code == 2 and f"--root '{tmp_path}/my data'" in out


def test_verify_all_counts(good, capsys):
    code, out = check(capsys, good, "all")
    assert code == 2 and "2 OK, 0 wrong, 14 not there" in out


def test_verify_writes_nothing(root, capsys):
    before = sorted(root.rglob("*"))
    check(capsys, root)
    assert sorted(root.rglob("*")) == before


# --- verify: what is wrong ------------------------------------------------------------------------


def faulty(capsys, root, *expected, name="DescribableTextures", options=(), code=1):
    found, out = check(capsys, root, name, *options)
    assert found == code, out
    for text in expected:
        assert text in out


def test_missing_image(root, capsys):
    (root / "dtd/images/banded/banded_0002.jpg").unlink()
    faulty(capsys, root, "1 of the 5,640 images", "banded_0002.jpg", "Unpack")


@pytest.mark.slow
def test_truncated_image(root, capsys):
    path = min((root / "dtd/images/dotted").iterdir())
    overwrite(path, path.read_bytes()[:-300])
    faulty(capsys, root, str(path), "truncated", "Fetch the file anew", options=["--full"])


@pytest.mark.slow
def test_text_named_jpg(root, capsys):
    path = next((root / "oxford_pets/images").glob("*_7.jpg"))
    overwrite(path, b"<html>404</html>")
    faulty(capsys, root, str(path), "it is a web page", name="OxfordPets", options=["--full"])


@pytest.mark.slow
def test_several_bad_images_are_counted(root, capsys):
    for path in sorted((root / "dtd/images/dotted").iterdir())[:2]:
        overwrite(path, b"")
    faulty(capsys, root, "(1 more like it)", options=["--full"])


def test_empty_class_folder(root, capsys):
    shutil.rmtree(root / "dtd/images/lined")
    (root / "dtd/images/lined").mkdir()
    faulty(capsys, root, f"folder {root}/dtd/images/lined is empty")


def test_extra_class(root, capsys):
    shutil.copytree(root / "dtd/images/lined", root / "dtd/images/my_class")
    faulty(capsys, root, "images/my_class is no class of DescribableTextures", "move it out")


def test_damaged_split_file(root, capsys):
    (root / "dtd/split_zhou_DescribableTextures.json").write_text('{"train": [["a.jp')
    faulty(capsys, root, "split_zhou_DescribableTextures.json is not valid JSON", "delete it")


def test_split_file_of_another_form(root, capsys):
    (root / "dtd/split_zhou_DescribableTextures.json").write_text('{"train": [1, 2]}')
    faulty(capsys, root, "is no split file", "Delete it to use the official one")


def test_wrong_label_in_the_split_file(root, capsys):
    def change(lists):
        lists["test"][0][1:] = lists["test"][-1][1:]  # label and name of another class

    own_split(root, change)
    faulty(
        capsys, root, "differs from the official one in 1 image:", "officially in test", "Delete"
    )


def test_label_with_two_names(root, capsys):
    def change(lists):
        lists["train"][5][2] = "striped thing"

    own_split(root, change)
    faulty(capsys, root, "label 0 both 'banded' and 'striped thing'")


def test_image_in_two_parts(root, capsys):
    own_split(root, lambda lists: lists["test"].append(lists["train"][0]))
    faulty(capsys, root, "1 image in more than one of train, val and test", lists_first(root))


def lists_first(root: Path) -> str:
    return fixtures.official_split("DescribableTextures")["train"][0][0]


def test_wrong_count(root, capsys):
    own_split(root, lambda lists: lists["val"].pop())
    faulty(capsys, root, "in 1 image:", "is in no part, but officially in val")


def test_wrong_count_without_a_shipped_split(tmp_path, capsys):
    fixtures.make("FGVCAircraft", tmp_path, per_class=1)
    faulty(capsys, tmp_path, "train has 100 images; FGVCAircraft has 3,334", name="FGVCAircraft")


def test_root_is_missing(tmp_path, capsys):
    faulty(capsys, tmp_path / "none", "does not exist", code=2)


def test_root_is_the_data_sets_own_folder(root, capsys):
    faulty(capsys, root / "dtd", f"type --root {root}")


def test_root_is_one_level_too_high(root, capsys):
    faulty(capsys, root.parent, f"type --root {root}")


def test_folder_of_another_name(root, capsys):
    (root / "dtd").rename(root / "textures")
    faulty(capsys, root / "textures", "must be named 'dtd'")


def test_one_level_too_deep(root, capsys):
    (root / "dtd").rename(root / "dtd-r1.0.1")
    (root / "dtd" / "archive").mkdir(parents=True)
    (root / "dtd-r1.0.1").rename(root / "dtd/archive/dtd-r1.0.1")
    faulty(capsys, root, "lie in", "dtd/archive/dtd-r1.0.1/images, but are expected in", "move it")


def test_class_folders_one_level_too_high(root, capsys):
    (root / "dtd/images").rename(root / "dtd2")
    shutil.rmtree(root / "dtd")
    (root / "dtd2").rename(root / "dtd")
    faulty(capsys, root, "class folders such as banded lie in", f"expected in {root}/dtd/images")


def test_nothing_there(tmp_path, capsys):
    faulty(capsys, tmp_path, "python -m datasets download DescribableTextures", code=2)


def test_few_shot_samples_tell_an_altered_split(root, capsys, monkeypatch):
    """Where no split ships, the same images in another order are noticed by the samples alone."""
    own_split(root, lambda lists: lists["train"].reverse())
    monkeypatch.setattr(base, "SPLITS", root / "none")
    monkeypatch.setattr(verify, "SPLITS", root / "none")
    faulty(capsys, root, "1-shot sample of seed 1 is not the published one", "Move")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00bad", b"", b"0034309\n"])
def test_unreadable_annotations(tmp_path, capsys, content):
    fixtures.make("FGVCAircraft", tmp_path, per_class=1)
    overwrite(tmp_path / "fgvc_aircraft/images_variant_train.txt", content)
    faulty(capsys, tmp_path, "images_variant_train.txt", name="FGVCAircraft")


def test_missing_annotations(tmp_path, capsys):
    fixtures.make("FGVCAircraft", tmp_path, per_class=1)
    (tmp_path / "fgvc_aircraft/variants.txt").unlink()
    faulty(capsys, tmp_path, "variants.txt is missing", "download", name="FGVCAircraft")


def test_official_split_is_missing(tmp_path, capsys):
    folder = fixtures.make("Food101", tmp_path, per_class=1)
    faulty(capsys, tmp_path, "split_zhou_Food101.json is missing", "download", name="Food101")
    (folder / "split_zhou_Food101.json").write_text(
        json.dumps({"note": "built here", "train": [], "val": [], "test": []})
    )
    faulty(capsys, tmp_path, "was made by this project", "Delete it", name="Food101")


def test_classes_of_unequal_size(tmp_path, capsys, monkeypatch):
    folder = fixtures.make("Food101", tmp_path, per_class=1)
    rows = [
        [f"{name}/{100 * label + i}.jpg", label, name]
        for label, name in enumerate(fixtures.classnames("Food101"))
        for i in range(3)
    ]
    lists = {"train": rows[::3], "val": rows[1::3], "test": rows[2::3]}
    (folder / "split_zhou_Food101.json").write_text(json.dumps(lists))
    entry = dataclasses.replace(catalog()["Food101"], sizes=(101, 101, 101), per_class=(1, 2, 1))
    monkeypatch.setattr(cli, "entries", lambda name: [entry])
    faulty(capsys, tmp_path, "class 0 (apple_pie) has 1 image in val", name="Food101")


def test_wrong_number_of_classes(tmp_path, capsys, monkeypatch):
    fixtures.make("ImageNetA", tmp_path, per_class=1)
    entry = dataclasses.replace(catalog()["ImageNetA"], sizes=(None, None, 200), classes=1000)
    monkeypatch.setattr(cli, "entries", lambda name: [entry])
    faulty(capsys, tmp_path, "200 classes were found", "has 1000", name="ImageNetA")
