"""The 210 published few-shot samples that the shipped splits cover, through the classes themselves.

The digests were made from the index files of linzhiqiu/cross_modal_adaptation, which publishes the
samples that CoOp drew.
"""

from __future__ import annotations

import json
import time

import pytest

from datasets.base import SPLITS
from datasets.few_shot import PUBLISHED
from tests.datasets import fixtures
from tests.datasets.build import build

REFERENCE = json.loads(PUBLISHED.read_text())["datasets"]
SAMPLES = [(shots, seed) for shots in (1, 2, 4, 8, 16) for seed in (1, 2, 3)]


@pytest.fixture(scope="module", params=fixtures.WITH_SPLIT)
def tree(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    fixtures.make(request.param, root)
    return request.param, root


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
    assert "unknown (no reference for eurosat, shots 3, seed 1)" in capsys.readouterr().out
    assert build("EuroSAT", tmp_path, NUM_SHOTS=2, SEED=-1).few_shot_info["published"] is None
    dataset = build("EuroSAT", tmp_path)
    assert dataset.few_shot_info == {}
    assert dataset.provenance == {"split_digest": dataset.split_digest, "few_shot": {}}


def test_27000_images_are_read_in_well_under_a_second(tmp_path):
    fixtures.make("EuroSAT", tmp_path)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        build("EuroSAT", tmp_path)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1
