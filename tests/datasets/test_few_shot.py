"""The 210 published few-shot samples that the shipped splits cover, through the classes themselves.

The digests were made from the index files of linzhiqiu/cross_modal_adaptation, which publishes the
samples that CoOp drew.
"""

from __future__ import annotations

import json
import pickle
import time

import pytest

from dassl.data.datasets import Datum
from datasets.base import SPLITS
from datasets.few_shot import PUBLISHED
from tests.datasets import fixtures
from tests.datasets.build import build, change, rows

REFERENCE = json.loads(PUBLISHED.read_text())["datasets"]
SAMPLES = [(shots, seed) for shots in (1, 2, 4, 8, 16) for seed in (1, 2, 3)]


@pytest.fixture(scope="module", params=fixtures.WITH_SPLIT)
def tree(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    fixtures.make(request.param, root)
    return request.param, root


@pytest.mark.slow
def test_published_samples(tree, capsys):
    name, root = tree
    reference = REFERENCE[fixtures.KEYS[name][1]]
    for shots, seed in SAMPLES:
        dataset = build(name, root, NUM_SHOTS=shots, SEED=seed)
        expected = reference[f"shot_{shots}-seed_{seed}"]
        for part, items in (("train", dataset.train_x), ("val", dataset.val)):
            assert len(items) == expected[part]["n"]
            assert dataset.few_shot_info["digest"][part] == expected[part]["sha256"]
        assert dataset.few_shot_info["published"] is True
        line = f"Few-shot sample: the published one (shots {shots}, seed {seed})"
        assert line in capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_base_classes_belong_to_the_published_sample(tree):
    name, root = tree
    dataset = build(name, root, NUM_SHOTS=4, SEED=2, SUBSAMPLE_CLASSES="base")
    assert dataset.few_shot_info["published"] is True
    assert len(dataset.train_x) < REFERENCE[fixtures.KEYS[name][1]]["shot_4-seed_2"]["train"]["n"]


def test_all_shipped_splits_are_covered():
    shipped = {path.name for path in SPLITS.glob("split_zhou_*")}
    assert shipped == {f"split_zhou_{name}.json.gz" for name in fixtures.WITH_SPLIT}


def test_differing_and_unknown_samples_are_told_apart(tmp_path, capsys):
    fixtures.make("EuroSAT", tmp_path, per_class=5)
    assert build("EuroSAT", tmp_path, NUM_SHOTS=2).few_shot_info["published"] is False
    assert "Few-shot sample: differs from the published one (shots 2, seed 1)" in (
        capsys.readouterr().out
    )
    assert build("EuroSAT", tmp_path, NUM_SHOTS=3).few_shot_info["published"] is None
    assert "drawn here (shots 3, seed 1); none is published for eurosat" in capsys.readouterr().out
    assert build("EuroSAT", tmp_path, NUM_SHOTS=2, SEED=-1).few_shot_info["published"] is None
    dataset = build("EuroSAT", tmp_path)
    assert dataset.few_shot_info == {}
    assert dataset.provenance == {"split_digest": dataset.split_digest, "few_shot": {}}


@pytest.mark.slow
def test_27000_images_are_read_in_well_under_a_second(tmp_path):
    fixtures.make("EuroSAT", tmp_path)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        build("EuroSAT", tmp_path)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


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
