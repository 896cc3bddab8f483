"""Files that are kept beside the data, or in the user's cache; processes that prepare the same."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from dassl.utils import DataError, write_json
from datasets.readers.derived_files import user_cache
from tests.datasets import fixtures
from tests.datasets.build import SPLIT, build, rows


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
