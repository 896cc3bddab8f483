"""Split files, indexes and stored samples with any content: our own error, or what they say."""

from __future__ import annotations

import codecs
import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.utils import DataError, UserError
from datasets.few_shot import _read_stored
from datasets.readers.folder_index import _read_index
from datasets.readers.split_files import check_split, read_split_file
from tests.datasets.build import SPLIT, build, change

SETTINGS = settings(
    max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALID = {
    "train": [["a/1.jpg", 0, "a"], ["b/1.jpg", 1, "b"]],
    "val": [["a/2.jpg", 0, "a"]],
    "test": [["b/2.jpg", 1, "b"]],
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@st.composite
def spoilt(draw, valid):
    """A valid tree of JSON with one value, somewhere, that is another."""
    tree = json.loads(json.dumps(valid))
    node, key = {"": tree}, ""
    while isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 3)):
        node = node[key]
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    node[key] = draw(VALUES)
    return json.dumps(tree if key != "" else node[""])


@SETTINGS
@given(st.binary(max_size=200) | spoilt(VALID).map(str.encode))
def test_split_files(tmp_path, content):
    (tmp_path / "split.json").write_bytes(content)
    with contextlib.suppress(UserError):
        split, _ = read_split_file(tmp_path / "split.json", tmp_path)
        check_split("split.json", split)
        labels = {item.label for item in split[0]}
        assert labels == set(range(len(labels)))
        for items in split:
            for item in items:
                item.impath.encode(), item.classname.encode()


@SETTINGS
@given(
    spoilt(
        {
            "version": 3,
            "count": 1,
            "folders": {"a": {"changed_ns": [1, 1], "count": 1, "images": "x"}},
        }
    )
)
def test_indexes(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    assert isinstance(_read_index(tmp_path / "index.json"), dict)


@pytest.mark.slow
@SETTINGS
@given(st.data())
def test_stored_samples(eurosat, data):
    dataset = build("EuroSAT", eurosat, NUM_SHOTS=1)
    path = eurosat / "eurosat" / "split_fewshot" / "shot_1-seed_1.json"
    path.write_text(data.draw(spoilt(json.loads(path.read_text()))))
    sample = _read_stored(path, dataset, dataset.split_digest, dataset.train_x, dataset.val)
    path.unlink()
    assert sample is None or len(sample[0]) == len(dataset.train_x)


# --- labels and paths -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label",
    [0.5, 1.7, "1.7", True, None, "x", 10**20, 1e300, "9" * 400, float("inf"), float("nan"), [0]],
)
def test_what_is_no_label(eurosat, label):
    change(eurosat, lambda lists: lists["train"][0].__setitem__(1, label))
    with pytest.raises(DataError, match="is no split file"):
        build("EuroSAT", eurosat)


@pytest.mark.parametrize("write", [float, str, lambda label: f" {label}.0 "])
def test_whole_numbers_in_any_spelling(eurosat, write):
    expected = build("EuroSAT", eurosat).split_digest

    def spell(lists):
        for row in [row for part in lists.values() for row in part]:
            row[1] = write(row[1])

    change(eurosat, spell)
    dataset = build("EuroSAT", eurosat)
    assert dataset.split_digest == expected
    assert {type(item.label) for item in dataset.test} == {int}


def test_a_mark_in_front_of_a_split_file(eurosat):
    expected = build("EuroSAT", eurosat).split_digest
    path = eurosat / "eurosat" / SPLIT
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert build("EuroSAT", eurosat).split_digest == expected


def test_a_split_file_with_two_lists_of_test_images(eurosat):
    path = eurosat / "eurosat" / SPLIT
    lists = json.loads(path.read_text())
    path.write_text(f'{json.dumps(lists)[:-1]}, "test": {json.dumps(lists["test"][:3])}}}')
    with pytest.raises(DataError, match=r"the key 'test' is there twice"):
        build("EuroSAT", eurosat)


@pytest.mark.parametrize("label", [10**9, "1000000000"])
def test_a_huge_label_does_not_loop(eurosat, label):
    change(eurosat, lambda lists: lists["train"][0].__setitem__(1, label))
    with pytest.raises(DataError, match=r"no training images for label 10, 11, 12"):
        build("EuroSAT", eurosat)


@pytest.mark.parametrize("name", [None, 7, ["a"], "\ud800"])
def test_what_is_no_class_name(eurosat, name):
    change(eurosat, lambda lists: lists["train"][0].__setitem__(2, name))
    with pytest.raises(DataError, match="is no split file"):
        build("EuroSAT", eurosat)


@pytest.mark.parametrize("spelling", ["./{}", ".//{}", "River/../{}", ".\\{}"])
def test_one_path_in_two_spellings(eurosat, spelling):
    def leak(lists):
        path, label, name = lists["train"][0]
        lists["test"].append([spelling.format(path), label, name])

    change(eurosat, leak)
    with pytest.raises(DataError, match=r"1 image in more than one of train, val and test"):
        build("EuroSAT", eurosat)


def test_one_image_under_two_labels(eurosat):
    def twice(lists):
        lists["train"].append([lists["train"][0][0], *lists["train"][-1][1:]])

    change(eurosat, twice)
    with pytest.raises(DataError, match=r"the labels \d and \d; each image needs one"):
        build("EuroSAT", eurosat)
