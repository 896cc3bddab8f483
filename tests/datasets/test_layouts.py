"""Each of the fifteen datasets in its official layout: counts, labels, class names, splits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from scipy.io import savemat

import datasets
from dassl.utils import DataError, MissingFileError
from datasets.base import SPLITS, BenchmarkDataset
from datasets.digits import Digits
from datasets.dtd import DescribableTextures
from datasets.imagenet import ImageNet
from datasets.oxford_pets import OxfordPets
from tests.datasets import fixtures
from tests.datasets.build import build, rows

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "datasets"
TEMPLATES = {  # CoOp's zero-shot prompts, as its trainers/zsclip.py has them
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}
BUILT = ("Food101", "SUN397", *fixtures.WITH_SPLIT)  # whose split can be built


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("layouts")


def test_every_file_of_the_package_was_imported():
    assert datasets.failed_imports == {}


def test_importing_the_package_does_not_run_its_command_line():
    assert "__main__" not in datasets.modules


def test_only_the_command_line_knows_what_manages_datasets():
    assert not {"manage", "readers", "resources"} & datasets.modules.keys()
    folder = Path(datasets.__file__).parent
    for path in (*folder.glob("*.py"), *folder.glob("readers/*.py")):
        assert path.name == "__main__.py" or "datasets.manage" not in path.read_text("utf-8"), path


@pytest.mark.slow
@pytest.mark.parametrize("name", fixtures.COUNTS)
def test_official_layout(name, roots):
    root = roots / name
    fixtures.make(name, root, per_class=2 if name == "ImageNet" else None)
    dataset = build(name, root)
    n_classes, *counts = fixtures.COUNTS[name]
    if name == "ImageNet":
        counts = [2000, 2000, 2000]
    assert [len(items or []) for items in (dataset.train_x, dataset.val, dataset.test)] == counts
    assert dataset.num_classes == n_classes
    assert dataset.classnames == fixtures.classnames(name)
    assert dataset.template == TEMPLATES.get(name, "a photo of a {}.")
    assert {item.label for item in dataset.test} == set(range(n_classes))
    half = (n_classes + 1) // 2  # base: the first half, rounded up
    for subset, names in (("base", dataset.classnames[:half]), ("new", dataset.classnames[half:])):
        part = build(name, root, SUBSAMPLE_CLASSES=subset)
        assert part.classnames == names
        assert {item.label for item in part.test} == set(range(len(names)))
    shutil.rmtree(root)


def test_configs_name_every_data_set():
    found = {yaml.safe_load(path.read_text())["DATASET"]["NAME"] for path in CONFIGS.glob("*.yaml")}
    assert set(fixtures.COUNTS) <= found


def test_two_classes_may_share_a_name(tmp_path):
    fixtures.make("ImageNet", tmp_path, per_class=1)
    names = build("ImageNet", tmp_path).lab2cname
    assert len(names) == 1000 and len(set(names.values())) == 998
    assert [label for label, name in names.items() if name == "missile"] == [657, 744]


# --- splits that are built ------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT)
def test_split_is_built_where_there_is_none(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.base.SPLITS", tmp_path / "none")
    folder = fixtures.make(name, tmp_path / "a", per_class=4)
    given = folder / f"split_zhou_{name}.json"
    given.unlink(missing_ok=True)
    first = build(name, tmp_path / "a")
    assert "not the official split_zhou" in capsys.readouterr().out
    assert first.classnames == fixtures.classnames(name)
    images = {item.impath for part in (first.train_x, first.val, first.test) for item in part}
    n_classes = first.num_classes
    per_class = {"Food101": 40, "SUN397": 24}.get(name, 12)
    assert (
        len(images)
        == per_class * n_classes
        == sum(map(len, (first.train_x, first.val, first.test)))
    )
    assert all(Path(path).is_file() for path in images)

    given.rename(tmp_path / "kept.json")  # beside it, it would be one file more
    monkeypatch.setattr("random.shuffle", None)  # the global generator plays no part
    again = build(name, tmp_path / "a")
    assert again.split_digest == first.split_digest
    assert given.read_text() == (tmp_path / "kept.json").read_text()
    capsys.readouterr()
    assert build(name, tmp_path / "a").split_digest == first.split_digest
    assert "this split was built" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OxfordPets", "StanfordCars", "UCF101"])
def test_built_split_has_the_official_test_images_and_counts(name, tmp_path, monkeypatch):
    fixtures.make(name, tmp_path)
    official = build(name, tmp_path)
    monkeypatch.setattr("datasets.base.SPLITS", tmp_path / "none")
    built = build(name, tmp_path)
    assert sorted(rows(built.test, tmp_path)) == sorted(rows(official.test, tmp_path))
    trainval = official.train_x + official.val
    assert sorted(rows(built.train_x + built.val, tmp_path)) == sorted(rows(trainval, tmp_path))
    assert len(built.val) == len(official.val)


def test_own_split_file_wins(tmp_path):
    fixtures.make("EuroSAT", tmp_path, per_class=3)
    dataset = build("EuroSAT", tmp_path)
    assert [len(items) for items in (dataset.train_x, dataset.val, dataset.test)] == [30, 30, 30]


def test_flowers_take_our_names_where_theirs_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.base.SPLITS", tmp_path / "none")
    folder = fixtures.make("OxfordFlowers", tmp_path, per_class=4)
    (folder / "split_zhou_OxfordFlowers.json").unlink()
    (folder / "cat_to_name.json").unlink()
    assert build("OxfordFlowers", tmp_path).classnames == fixtures.classnames("OxfordFlowers")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("OxfordPets", "annotations/trainval.txt"),
        ("StanfordCars", "cars_test_annos_withlabels.mat"),
        ("OxfordFlowers", "imagelabels.mat"),
        ("SUN397", "Training_01.txt"),
        ("UCF101", "ucfTrainTestlist/testlist01.txt"),
        ("FGVCAircraft", "variants.txt"),
    ],
)
def test_missing_and_damaged_annotations_are_named(name, file, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.base.SPLITS", tmp_path / "none")
    folder = fixtures.make(name, tmp_path, per_class=4)
    (folder / f"split_zhou_{name}.json").unlink(missing_ok=True)
    (folder / file).write_bytes(b"\xff\xfe\x00not what it should be")
    with pytest.raises(DataError, match=Path(file).name):
        build(name, tmp_path)
    (folder / file).unlink()
    with pytest.raises(MissingFileError, match=f"needs {file}"):
        build(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "old", "new"),
    [
        ("OxfordPets", "annotations/trainval.txt", " 1 ", " x "),
        ("OxfordPets", "annotations/test.txt", " 1 ", " 1.5 "),
        ("OxfordPets", "annotations/test.txt", " 1 ", " 0 "),
        ("UCF101", "ucfTrainTestlist/classInd.txt", "1 ", "one "),
        ("OxfordFlowers", "cat_to_name.json", "{", "[{"),
        ("OxfordFlowers", "cat_to_name.json", '"7"', '"seven"'),
    ],
)
def test_numbers_of_classes_that_are_none(name, file, old, new, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.base.SPLITS", tmp_path / "none")
    path = fixtures.make(name, tmp_path, per_class=4) / file
    for split in tmp_path.glob("*/split_zhou_*"):
        split.unlink()
    text = path.read_text().replace(old, new, 1)
    path.write_text(text + "]" if new == "[{" else text)
    with pytest.raises(DataError, match=rf"{Path(file).name} .*anew"):
        build(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("OxfordFlowers", "imagelabels.mat", {"labels": [1.5, 2.0]}),
        ("OxfordFlowers", "imagelabels.mat", {"labels": [103]}),
        ("StanfordCars", "cars_test_annos_withlabels.mat", {"annotations": [1, 2]}),
    ],
)
def test_variables_that_hold_something_else(name, file, content, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.base.SPLITS", tmp_path / "none")
    folder = fixtures.make(name, tmp_path, per_class=4)
    (folder / f"split_zhou_{name}.json").unlink(missing_ok=True)
    savemat(folder / file, content)
    with pytest.raises(DataError, match=rf"{file} .*anew"):
        build(name, tmp_path)


def test_an_image_that_a_list_names_twice_is_said(tmp_path, capsys):
    folder = fixtures.make("FGVCAircraft", tmp_path, per_class=1)
    path = folder / "images_variant_test.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    assert len(build("FGVCAircraft", tmp_path).test) == 101
    assert "FGVCAircraft lists 1 image twice" in capsys.readouterr().out


# --- other places ---------------------------------------------------------------------------------

PLACES = {  # name → where upstream's folders and files go instead
    "Caltech101": {"caltech-101": "caltech101"},
    "OxfordPets": {"oxford_pets": "oxford-iiit-pet"},
    "StanfordCars": {"stanford_cars": "stanford_cars/stanford_cars"},
    "OxfordFlowers": {"oxford_flowers": "flowers-102"},
    "Food101": {"food-101": "food101"},
    "FGVCAircraft": {"fgvc_aircraft": "fgvc-aircraft-2013b/data"},
    "SUN397": {
        "sun397/SUN397": "SUN397",
        "sun397/ClassName.txt": "SUN397/ClassName.txt",
        "sun397/Training_01.txt": "SUN397/Training_01.txt",  # torchvision leaves these to us
        "sun397/Testing_01.txt": "SUN397/Testing_01.txt",
    },
    "DescribableTextures": {"dtd": "dtd/dtd"},
    "EuroSAT": {"eurosat": "eurosat/eurosat"},
    "ImageNet": {"imagenet/images": "imagenet"},
    "ImageNetV2": {
        "imagenetv2/imagenetv2-matched-frequency-format-val": (
            "imagenetv2-matched-frequency-format-val"
        )
    },
    "ImageNetA": {"imagenet-adversarial/imagenet-a": "imagenet-a"},
    "ImageNetR": {"imagenet-rendition/imagenet-r": "imagenet-r"},
    "ImageNetSketch": {"imagenet-sketch/images": "imagenet-sketch/sketch"},
}


@pytest.mark.parametrize("name", PLACES)
def test_places_of_torchvision_and_of_archives(name, tmp_path, capsys):
    upstream, other = tmp_path / "upstream", tmp_path / "other"
    folder = fixtures.make(name, upstream, per_class=2)
    expected = build(name, upstream, NUM_SHOTS=1)
    shutil.rmtree(folder / "split_fewshot", ignore_errors=True)
    for old, new in PLACES[name].items():
        (other / new).parent.mkdir(parents=True, exist_ok=True)
        (upstream / old).rename(other / new)
    if name in fixtures.WITH_SPLIT:  # the cut split file lies inside of what torchvision unpacks
        own = next(other.rglob("split_zhou_*.json"))
        own.rename(other.joinpath(*type(expected).other_places[0][:1]) / own.name)
    capsys.readouterr()
    dataset = build(name, other, NUM_SHOTS=1)
    assert f"Note: {name} is read from" in capsys.readouterr().out
    assert dataset.classnames == fixtures.classnames(name)
    assert dataset.split_digest == expected.split_digest
    assert dataset.few_shot_info == expected.few_shot_info


def test_absent_data_set_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(MissingFileError, match=r"caltech-101.*nor caltech101/101_Obj.*--root"):
        build("Caltech101", tmp_path)


# --- ImageNet -------------------------------------------------------------------------------------


def test_few_shots_leave_imagenets_validation_images_whole(tmp_path):
    fixtures.make("ImageNet", tmp_path, per_class=3)
    dataset = build("ImageNet", tmp_path, NUM_SHOTS=1)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (1000, 3000, 3000)
    assert dataset.few_shot_info["published"] is None


def test_train_and_val_must_hold_the_same_classes(tmp_path):
    folder = fixtures.make("ImageNet", tmp_path, per_class=1)
    shutil.rmtree(folder / "images" / "val" / "n01440764")
    with pytest.raises(DataError, match="only one of them has n01440764"):
        build("ImageNet", tmp_path)


def test_foreign_folder_among_the_classes(tmp_path):
    folder = fixtures.make("ImageNetA", tmp_path, per_class=1)
    (folder / "imagenet-a" / "backup").mkdir()
    (folder / "imagenet-a" / "backup" / "x.JPEG").touch()
    with pytest.raises(DataError, match="holds backup, which ImageNet does not know"):
        build("ImageNetA", tmp_path)


def test_v2_folders_are_labels_not_text(tmp_path):
    fixtures.make("ImageNetV2", tmp_path, per_class=1)
    dataset = build("ImageNetV2", tmp_path)
    assert all(Path(item.impath).parent.name == str(item.label) for item in dataset.test)
    shutil.rmtree(Path(dataset.image_dir) / "999")
    with pytest.raises(DataError, match="999 folders; expected 1,000"):
        build("ImageNetV2", tmp_path)


# --- what other people's files use ----------------------------------------------------------------


def test_utilities_are_found_on_the_classes_that_upstream_has_them_on():
    assert OxfordPets.read_split is BenchmarkDataset.read_split
    assert OxfordPets.subsample_classes is BenchmarkDataset.subsample_classes
    assert OxfordPets.split_trainval is BenchmarkDataset.split_trainval
    assert DescribableTextures.read_and_split_data is BenchmarkDataset.read_and_split_data
    assert next(iter(ImageNet.read_classnames(SPLITS.parent / "imagenet_classnames.txt"))) == (
        "n01440764"
    )
    assert Digits.split_file
