"""What every dataset gets from its base class: where it lies, and subsets of its classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import ConfigError
from datasets.base import BenchmarkDataset
from datasets.folder import Folder
from datasets.imagenet import ImageNet
from datasets.sun397 import SUN397
from tests.datasets import fixtures
from tests.datasets.build import build


@pytest.mark.parametrize("name", fixtures.COUNTS)
def test_a_dataset_that_is_not_there_is_located_at_upstreams_place(name, tmp_path, capsys):
    cls = DATASET_REGISTRY.get(name)
    before = vars(cls).copy()
    expected = (tmp_path / cls.dataset_dir, tmp_path / cls.dataset_dir / cls.image_dir)
    assert cls.locate(tmp_path) == expected
    assert vars(cls) == before and not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("cls", "folder", "dataset_dir", "image_dir"),
    [
        (SUN397, "SUN397/a", "SUN397", "SUN397"),
        (ImageNet, "imagenet/train", "imagenet", "imagenet"),
        (ImageNet, "imagenet/images", "imagenet", "imagenet/images"),  # without its landmark
        (
            ImageNet,
            "imagenet/ILSVRC/Data/CLS-LOC/train",
            "imagenet",
            "imagenet/ILSVRC/Data/CLS-LOC",
        ),
    ],
)
def test_another_known_place_that_is_there(
    cls, folder, dataset_dir, image_dir, tmp_path, monkeypatch, capsys
):
    (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    expected = (tmp_path / dataset_dir, tmp_path / image_dir)
    assert cls.locate(tmp_path) == cls.locate(Path()) == expected
    assert capsys.readouterr().out == ""


def test_upstreams_place_comes_first(tmp_path):
    for folder in ("SUN397/a", "sun397/SUN397/a"):
        (tmp_path / folder).mkdir(parents=True)
    assert SUN397.locate(tmp_path) == (tmp_path / "sun397", tmp_path / "sun397" / "SUN397")


def test_own_images_lie_in_the_root_itself(tmp_path):
    assert Folder.locate(tmp_path) == (tmp_path, tmp_path)


@pytest.mark.parametrize("subsample", ["base", "new"])
def test_a_subset_of_the_classes_keeps_the_domains(subsample):
    items = [Datum(f"{label}.jpg", label, 10 + label, f"class {label}") for label in range(4)]
    (kept,) = BenchmarkDataset.subsample_classes(items, subsample=subsample)
    labels = [0, 1] if subsample == "base" else [2, 3]
    assert [item.domain for item in kept] == [10 + label for label in labels]
    assert [item.classname for item in kept] == [f"class {label}" for label in labels]
    assert [item.label for item in kept] == [0, 1]


def test_the_split_of_the_digits_is_the_one_that_would_be_built(tmp_path, monkeypatch):
    shipped = build("Digits", tmp_path)
    monkeypatch.setattr("datasets.base.SPLITS", tmp_path / "none")
    assert build("Digits", tmp_path).split_digest == shipped.split_digest


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("CSV", "a.csv"), ("CLASSNAMES", "a,b"), ("ENCODING", "gbk"), ("TEMPLATE", "a {}.")),
        *(("BACKGROUND", "black"), ("VALUE_RANGE", (0, 4095)), ("VALUE_RANGE", [0, 1])),
    ],
)
def test_settings_that_a_benchmark_does_not_read(tmp_path, key, value):
    """No number may look as if they had been heeded."""
    with pytest.raises(ConfigError, match=rf"DATASET\.{key} .* has no effect on .*NAME Digits"):
        build("Digits", tmp_path, **{key: value})
