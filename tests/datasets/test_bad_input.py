"""What people's folders and files get wrong: the message names it, or it is put up with."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from dassl.data.datasets import Datum
from dassl.utils import DataError, MissingFileError, write_json
from datasets.readers.derived_files import user_cache
from tests.datasets import fixtures
from tests.datasets.build import build, rows

SPLIT = "split_zhou_EuroSAT.json"


@pytest.fixture
def eurosat(tmp_path, monkeypatch) -> Path:
    """A root with three images a class and part of EuroSAT, and a split file beside them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fixtures.make("EuroSAT", tmp_path / "data", per_class=3)
    return tmp_path / "data"


def change(root: Path, alter: Any) -> dict[str, list]:
    """Calls `alter(lists)` on the content of EuroSAT's split file and writes it back."""
    path = root / "eurosat" / SPLIT
    lists = json.loads(path.read_text())
    alter(lists)
    path.write_text(json.dumps(lists))
    return lists


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


def test_empty_class_folder_of_imagenet(tmp_path):
    folder = fixtures.make("ImageNetA", tmp_path, per_class=1)
    wnid = fixtures.wnids("ImageNetA")[7]
    (folder / "imagenet-a" / wnid / f"{wnid}_0.JPEG").unlink()
    with pytest.raises(DataError, match=f"class folder .*{wnid} holds no images"):
        build("ImageNetA", tmp_path)


def test_too_few_images_to_split(eurosat, monkeypatch):
    monkeypatch.setattr("datasets.base.SPLITS", eurosat)
    (eurosat / "eurosat" / SPLIT).unlink()
    for path in sorted((eurosat / "eurosat" / "2750" / "River").iterdir())[2:]:
        path.unlink()
    with pytest.raises(DataError, match=r"River holds 2 images, too few"):
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


# --- few-shot samples that are kept ---------------------------------------------------------------


def test_sample_travels_to_another_root(eurosat, capsys):
    first = build("EuroSAT", eurosat, NUM_SHOTS=2)
    moved = eurosat.rename(eurosat.with_name("elsewhere"))
    capsys.readouterr()
    again = build("EuroSAT", moved, NUM_SHOTS=2)
    assert "Loading preprocessed few-shot data" in capsys.readouterr().out
    assert rows(again.train_x, moved) == rows(first.train_x, eurosat)
    assert again.few_shot_info == first.few_shot_info
    text = (moved / "eurosat" / "split_fewshot" / "shot_2-seed_1.json").read_text()
    assert str(eurosat) not in text and json.loads(text)["digest"] == first.few_shot_info["digest"]


def test_sample_of_another_split_is_drawn_anew(eurosat, capsys):
    build("EuroSAT", eurosat, NUM_SHOTS=2)

    def swap(lists: dict[str, list]) -> None:
        lists["train"], lists["test"] = lists["test"], lists["train"]

    change(eurosat, swap)
    dataset = build("EuroSAT", eurosat, NUM_SHOTS=2)
    assert "was drawn from another split; drawing anew" in capsys.readouterr().out
    test = {item.impath for item in dataset.test}
    assert not any(item.impath in test for item in dataset.train_x)
    build("EuroSAT", eurosat, NUM_SHOTS=2)
    assert "Loading preprocessed few-shot data" in capsys.readouterr().out


def spoil_swap(content: dict) -> None:
    content["train"][0] = content["train"][1]


def spoil_other_image(content: dict) -> None:
    content["train"][0][0] = "2750/Forest/none.jpg"


@pytest.mark.parametrize("spoil", [spoil_swap, spoil_other_image, lambda content: content.clear()])
def test_sample_that_was_changed_is_drawn_anew(spoil, eurosat, capsys):
    first = build("EuroSAT", eurosat, NUM_SHOTS=2)
    path = eurosat / "eurosat" / "split_fewshot" / "shot_2-seed_1.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    again = build("EuroSAT", eurosat, NUM_SHOTS=2)
    assert "drawing anew" in capsys.readouterr().out
    assert rows(again.train_x, eurosat) == rows(first.train_x, eurosat)


def test_upstreams_pickle_counts_only_if_it_fits(eurosat, capsys):
    drawn = build("EuroSAT", eurosat, NUM_SHOTS=2)
    path = eurosat / "eurosat" / "split_fewshot" / "shot_2-seed_1.pkl"
    path.with_suffix(".json").unlink()
    full = build("EuroSAT", eurosat)

    def store(train: list[Datum]) -> None:
        parts = {"train": train, "val": drawn.val}
        away = {
            part: [
                Datum(i.impath.replace(str(eurosat), "/other"), i.label, 0, i.classname)
                for i in items
            ]
            for part, items in parts.items()
        }
        path.write_bytes(pickle.dumps(away))

    other = [item for label in range(10) for item in full.train_x[3 * label + 1 : 3 * label + 3]]
    store(other)
    assert rows(build("EuroSAT", eurosat, NUM_SHOTS=2).train_x, eurosat) == rows(other, eurosat)
    wrong = [Datum(item.impath, 9 - item.label, 0, item.classname) for item in other]
    for train in (other[:-1], wrong, full.test[:20]):
        store(train)
        capsys.readouterr()
        dataset = build("EuroSAT", eurosat, NUM_SHOTS=2)
        assert "drawing anew" in capsys.readouterr().out
        assert rows(dataset.train_x, eurosat) == rows(drawn.train_x, eurosat)
        path.with_suffix(".json").unlink()


# --- read-only data, and runs beside each other ---------------------------------------------------


@pytest.fixture
def read_only(monkeypatch, tmp_path):
    """Makes everything below `tmp_path/data` refuse our files; root may write anywhere."""

    def refuse(content: Any, path: Path) -> None:
        if Path(path).is_relative_to(tmp_path / "data"):
            raise PermissionError(13, "Permission denied")
        write_json(content, path)

    monkeypatch.setattr("datasets.readers.derived_files.write_json", refuse)


def test_sample_goes_to_the_users_cache(eurosat, read_only, capsys):
    first = build("EuroSAT", eurosat, NUM_SHOTS=2)
    out = capsys.readouterr().out
    cache = user_cache(eurosat / "eurosat")
    assert "cannot be written (Permission denied)" in out and str(cache) in out
    assert (cache / "split_fewshot" / "shot_2-seed_1.json").is_file()
    assert not (eurosat / "eurosat" / "split_fewshot").exists()
    again = build("EuroSAT", eurosat, NUM_SHOTS=2)
    assert f"Loading preprocessed few-shot data from {cache}" in capsys.readouterr().out
    assert rows(again.train_x, eurosat) == rows(first.train_x, eurosat)


def test_index_and_split_go_to_the_users_cache(eurosat, read_only, monkeypatch, capsys):
    fixtures.make("ImageNetR", eurosat, per_class=1)
    build("ImageNetR", eurosat)
    assert (user_cache(eurosat / "imagenet-rendition") / "index_imagenet-r.json").is_file()
    capsys.readouterr()
    build("ImageNetR", eurosat)
    assert "Listed" not in capsys.readouterr().out

    monkeypatch.setattr("datasets.base.SPLITS", eurosat)
    (eurosat / "eurosat" / SPLIT).unlink()
    built = build("EuroSAT", eurosat)
    assert (user_cache(eurosat / "eurosat") / SPLIT).is_file()
    assert build("EuroSAT", eurosat).split_digest == built.split_digest


def test_no_place_at_all_still_runs(eurosat, monkeypatch, capsys):
    def refuse(content: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.readers.derived_files.write_json", refuse)
    dataset = build("EuroSAT", eurosat, NUM_SHOTS=2)
    assert len(dataset.train_x) == 20
    assert "is not kept" in capsys.readouterr().out


def test_digits_need_a_folder_that_can_be_written(tmp_path):
    (tmp_path / "digits").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"digits cannot be written .*--root"):
        build("Digits", tmp_path)


def _prepare(name: str, root: Path, start: Any, results: Any) -> None:
    start.wait()
    dataset = build(name, root, NUM_SHOTS=2)
    results.put((dataset.split_digest, dataset.few_shot_info, len(dataset.test)))


@pytest.mark.parametrize("name", ["Digits", "ImageNetA", "Food101"])
def test_two_processes_prepare_the_same_data_set(name, tmp_path):
    if name != "Digits":
        fixtures.make(name, tmp_path, per_class=1)
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(2), context.Queue()
    pair = [
        context.Process(target=_prepare, args=(name, tmp_path, start, results)) for _ in range(2)
    ]
    for process in pair:
        process.start()
    first, second = (results.get(timeout=120) for _ in pair)
    for process in pair:
        process.join()
        assert process.exitcode == 0
    assert first == second
    assert not list(tmp_path.rglob("*.part"))
    dataset = build(name, tmp_path, NUM_SHOTS=2)
    assert (dataset.split_digest, dataset.few_shot_info, len(dataset.test)) == first
