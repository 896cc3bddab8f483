"""Splits and indexes that we keep are built anew when the files are others than they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from scipy.io import loadmat, savemat

from dassl.utils import DataError
from tests.datasets import fixtures
from tests.datasets.build import SPLIT, build, change, rows

NO_SPLIT = "datasets.base.SPLITS"  # where the official ones ship


@pytest.fixture
def unsplit(eurosat, monkeypatch) -> Path:
    """EuroSAT without an official split."""
    monkeypatch.setattr(NO_SPLIT, eurosat)
    (eurosat / "eurosat" / SPLIT).unlink()
    return eurosat


def sizes(dataset) -> tuple[int, int, int]:
    return len(dataset.train_x), len(dataset.val), len(dataset.test)


def test_a_split_of_a_half_unpacked_archive(unsplit, capsys):
    images = unsplit / "eurosat" / "2750"
    (images / "River").rename(unsplit / "River")
    assert build("EuroSAT", unsplit).num_classes == 9
    (unsplit / "River").rename(images / "River")
    capsys.readouterr()
    whole = build("EuroSAT", unsplit)
    out = capsys.readouterr().out
    assert "was built from 81 files" in out and "holds 90 files" in out
    assert "building it anew" in out and whole.num_classes == 10
    assert build("EuroSAT", unsplit).split_digest == whole.split_digest
    assert "building it anew" not in capsys.readouterr().out


@pytest.mark.parametrize("spoil", ["added", "renamed", "removed"])
def test_any_other_files(unsplit, spoil, capsys):
    before = build("EuroSAT", unsplit)
    path = sorted((unsplit / "eurosat" / "2750" / "River").iterdir())[0]
    if spoil == "renamed":
        path.rename(path.with_name("River_9999.jpg"))
    elif spoil == "added":
        for i in range(3):
            shutil.copy(path, path.with_name(f"River_999{i}.jpg"))
        shutil.copy(path, path.with_name("River_9998.jpg"))
    else:
        for other in sorted(path.parent.iterdir())[-3:]:
            other.unlink()
    capsys.readouterr()
    after = build("EuroSAT", unsplit)
    assert "building it anew" in capsys.readouterr().out
    assert after.split_digest != before.split_digest
    assert all(Path(item.impath).is_file() for item in after.train_x + after.val + after.test)


def test_what_does_not_concern_the_split(unsplit, capsys):
    build("EuroSAT", unsplit, NUM_SHOTS=1)
    (unsplit / "eurosat" / ".DS_Store").write_text("x")
    (unsplit / "eurosat" / "2750" / "@eaDir").mkdir()
    (unsplit / "eurosat" / "index_train.json").write_text("{}")
    capsys.readouterr()
    build("EuroSAT", unsplit, NUM_SHOTS=1)
    assert "building it anew" not in capsys.readouterr().out


@pytest.mark.slow
def test_annotations_that_were_exchanged(tmp_path, monkeypatch, capsys):
    fixtures.make("OxfordFlowers", tmp_path)
    monkeypatch.setattr(NO_SPLIT, tmp_path)
    folder = tmp_path / "oxford_flowers"
    kept = folder / "split_zhou_OxfordFlowers.json"
    kept.unlink(missing_ok=True)
    build("OxfordFlowers", tmp_path)
    labels = loadmat(folder / "imagelabels.mat")["labels"]
    savemat(folder / "imagelabels.mat", {"labels": labels, "note": "corrected"})
    capsys.readouterr()
    build("OxfordFlowers", tmp_path)
    assert "building it anew" in capsys.readouterr().out


def test_an_older_file_of_ours_is_built_anew(unsplit, capsys):
    """Kept before we noted what a split was built from; Thumbs.db may be in it."""
    river = unsplit / "eurosat" / "2750" / "River"
    (river / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    clean = build("EuroSAT", unsplit)
    kept = unsplit / "eurosat" / SPLIT
    content = json.loads(kept.read_text())
    assert not any("Thumbs" in row[0] for part in ("train", "val", "test") for row in content[part])
    del content["built_from"]
    content["train"].append(["River/Thumbs.db", 8, "River"])
    kept.write_text(json.dumps(content))
    capsys.readouterr()
    assert build("EuroSAT", unsplit).split_digest == clean.split_digest
    assert "was built from files that it does not name" in capsys.readouterr().out


def test_files_and_folders_that_are_no_images_make_no_split(unsplit, capsys):
    expected = build("EuroSAT", unsplit).split_digest
    (unsplit / "eurosat" / SPLIT).unlink()
    images = unsplit / "eurosat" / "2750"
    (images / "River" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (images / "River" / "notes.txt").write_text("hello")
    (images / "River" / "more.jpg").mkdir()
    (images / "River" / "gone.jpg").symlink_to(images / "nowhere.jpg")
    for name in ("@eaDir", "__MACOSX", "split_fewshot"):
        (images / name).mkdir()
        (images / name / "a.jpg").write_bytes(b"x")
    capsys.readouterr()
    assert build("EuroSAT", unsplit).split_digest == expected
    assert "4 entries that are no images (River/" in capsys.readouterr().out


def test_images_of_a_benchmark_without_an_ending_count(unsplit):
    river = unsplit / "eurosat" / "2750" / "River"
    for path in list(river.iterdir()):
        path.rename(path.with_suffix(""))
    dataset = build("EuroSAT", unsplit)
    assert sum(sizes(dataset)) == 90


def test_a_users_split_that_names_no_image(eurosat):
    (eurosat / "eurosat" / "2750" / "River" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    change(eurosat, lambda lists: lists["train"].append(["River/Thumbs.db", 8, "River"]))
    with pytest.raises(DataError, match=r"River/Thumbs\.db cannot be read"):
        build("EuroSAT", eurosat)


def test_a_users_split_is_never_built_anew(eurosat, capsys):
    """What somebody else wrote counts, whatever files lie beside."""
    before = rows(build("EuroSAT", eurosat).train_x, eurosat)
    shutil.copy(
        next((eurosat / "eurosat" / "2750" / "River").iterdir()),
        eurosat / "eurosat" / "2750" / "River" / "River_9999.jpg",
    )
    capsys.readouterr()
    assert rows(build("EuroSAT", eurosat).train_x, eurosat) == before
    assert "building it anew" not in capsys.readouterr().out


def test_an_index_of_imagenet_names_images_alone(tmp_path, capsys):
    folder = fixtures.make("ImageNetA", tmp_path, per_class=1)
    clean = build("ImageNetA", tmp_path)
    wnid = fixtures.wnids("ImageNetA")[7]
    (folder / "imagenet-a" / wnid / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "imagenet-a" / "@eaDir").mkdir()
    capsys.readouterr()
    assert build("ImageNetA", tmp_path).split_digest == clean.split_digest
    assert f"1 entry that is no image ({wnid}/Thumbs.db)" in capsys.readouterr().out
    index = folder / "index_imagenet-a.json"
    content = json.loads(index.read_text())
    content["version"] = 1  # such an index may name Thumbs.db
    index.write_text(json.dumps(content))
    assert build("ImageNetA", tmp_path).split_digest == clean.split_digest
    assert "its version are wrong" in capsys.readouterr().out
