"""The index of ImageNet's class folders: used, and noticed when it is stale."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from dassl.utils import DataError
from tests.datasets import fixtures
from tests.datasets.build import build


def test_index_is_used_and_noticed_when_stale(tmp_path, capsys):
    folder = fixtures.make("ImageNet", tmp_path, per_class=2)
    first = build("ImageNet", tmp_path)
    assert "Listed 1,000 folders anew" in capsys.readouterr().out
    index = json.loads((folder / "index_train.json").read_text())
    assert index["count"] == 2000 and str(tmp_path) not in json.dumps(index)
    assert build("ImageNet", tmp_path).split_digest == first.split_digest
    assert "Listed" not in capsys.readouterr().out

    tench = folder / "images" / "train" / "n01440764"
    os.link(tench / "n01440764_0.JPEG", tench / "n01440764_9.JPEG")
    assert len(build("ImageNet", tmp_path).train_x) == 2001
    assert "Listed 1 folder anew" in capsys.readouterr().out
    (folder / "images" / "val" / "n01440764" / "n01440764_0.JPEG").unlink()
    assert len(build("ImageNet", tmp_path).test) == 1999

    (folder / "index_train.json").write_text('{"version": 1, "folders": 3}')
    assert len(build("ImageNet", tmp_path).train_x) == 2001
    assert "is not used" in capsys.readouterr().out


def test_a_folder_that_was_restored_with_its_old_times(tmp_path):
    """As `tar x`, `rsync -a` and `cp -a` leave it; its new images must not be passed over."""
    folder = fixtures.make("ImageNetA", tmp_path, per_class=1)
    assert len(build("ImageNetA", tmp_path).test) == 200
    place = folder / "imagenet-a" / fixtures.wnids("ImageNetA")[0]
    before = place.stat()
    image = next(place.iterdir())
    os.link(image, place / "another.JPEG")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(build("ImageNetA", tmp_path).test) == 201
    image.unlink()
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(build("ImageNetA", tmp_path).test) == 200


def test_index_travels(tmp_path, capsys):
    fixtures.make("ImageNetA", tmp_path / "a", per_class=1)
    build("ImageNetA", tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    capsys.readouterr()
    moved = build("ImageNetA", tmp_path / "b")
    assert "Listed" not in capsys.readouterr().out
    assert all(Path(item.impath).is_file() for item in moved.test)


def test_removed_class_folder_makes_the_index_stale(tmp_path):
    folder = fixtures.make("ImageNetR", tmp_path, per_class=1)
    build("ImageNetR", tmp_path)
    shutil.rmtree(folder / "imagenet-r" / fixtures.wnids("ImageNetR")[3])
    assert build("ImageNetR", tmp_path).num_classes == 199


def test_empty_class_folder_of_imagenet(tmp_path):
    folder = fixtures.make("ImageNetA", tmp_path, per_class=1)
    wnid = fixtures.wnids("ImageNetA")[7]
    (folder / "imagenet-a" / wnid / f"{wnid}_0.JPEG").unlink()
    with pytest.raises(DataError, match=f"class folder .*{wnid} holds no images"):
        build("ImageNetA", tmp_path)
