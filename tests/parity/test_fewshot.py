"""Few-shot draws, class subsets and splits against fewshot.json: items, order, random numbers."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest

import datasets
from dassl.config import get_cfg_default
from dassl.data.datasets import DatasetBase, Datum
from datasets.base import BenchmarkDataset
from datasets.eurosat import CLASSNAMES, EuroSAT
from tests.golden_recipes import CreatesFile, load_json

DATA = load_json("fewshot.json")
SHOTS = DATA["generate_fewshot_dataset"]
SUBSETS = [case for case in DATA["subsample_classes"] if "n_classes" in case]
GAPS = [case for case in DATA["subsample_classes"] if "n_classes" not in case]
SPLITS = DATA["read_and_split_data"]
ANY_DATASET = DatasetBase(train_x=[Datum()])


def listing(name: str, part: str) -> list[Datum]:
    return [Datum(path, label) for path, label in SHOTS["listings"][name][part]]


def paths(items: list[Datum]) -> list[str]:
    return [item.impath for item in items]


def rows(items: list[Datum], root: Path) -> list[list]:
    return [[Path(i.impath).relative_to(root).as_posix(), i.label, i.classname] for i in items]


def case_id(case: dict[str, Any]) -> str:
    keys = ("listing", "n_classes", "subsample", "num_shots", "seed")
    return "-".join(f"{key}:{case[key]}" for key in keys if key in case)


# --- few shots ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SHOTS["results"], ids=case_id)
def test_training_then_validation_sample(case, capsys):
    random.seed(case["seed"])
    for part, shots in (("train", "num_shots"), ("val", "val_shots")):
        items = listing(case["listing"], part)
        sample = ANY_DATASET.generate_fewshot_dataset(items, num_shots=case[shots])
        assert paths(sample) == case[part]
        assert [item.label for item in sample] == case[f"{part}_labels"]
    assert random.random() == case["next_random"]
    if case["num_shots"] == case["val_shots"] == 4:
        assert capsys.readouterr().out.splitlines() == SHOTS["printed"] * 2


@pytest.mark.parametrize("case", SHOTS["repeat_true"], ids=case_id)
def test_short_classes_filled_up(case):
    random.seed(case["seed"])
    items = listing(case["listing"], "train")
    shots = case["num_shots"]
    sample = ANY_DATASET.generate_fewshot_dataset(items, num_shots=shots, repeat=True)
    assert paths(sample) == case["train"]
    assert random.random() == case["next_random"]


@pytest.mark.parametrize("case", SHOTS["two_sources_one_call"], ids=case_id)
def test_two_sources_in_one_call(case):
    random.seed(case["seed"])
    sources = [listing(case["listing"], part) for part in ("train", "val")]
    train, val = ANY_DATASET.generate_fewshot_dataset(*sources, num_shots=case["num_shots"])
    assert (paths(train), paths(val)) == (case["train"], case["val"])
    assert random.random() == case["next_random"]


def test_an_own_generator_draws_the_same():
    case = SHOTS["results"][0]
    items, state = listing(case["listing"], "train"), random.getstate()
    rng = random.Random(case["seed"])
    sample = ANY_DATASET.generate_fewshot_dataset(items, num_shots=case["num_shots"], rng=rng)
    assert paths(sample) == case["train"]
    assert random.getstate() == state


def test_below_one_shot_hands_back_what_came():
    one, two = listing("by_class", "train"), listing("by_class", "val")
    below = SHOTS["num_shots_below_1"]
    same = ANY_DATASET.generate_fewshot_dataset(one, num_shots=0) is one
    assert same is below["one_source_returns_same_list_object"]
    both = ANY_DATASET.generate_fewshot_dataset(one, two)
    assert type(both).__name__ == below["two_sources_type"]
    assert both[0] is one and both[1] is two


# --- base and new classes -------------------------------------------------------------------------


@pytest.mark.parametrize("case", SUBSETS, ids=case_id)
def test_subset_of_classes(case, capsys):
    n = case["n_classes"]
    names = next(c["classnames"] for c in SUBSETS if c["n_classes"] == n)  # of all classes
    labels = [*range(n)]
    train = [Datum(str(c), c, classname=names[c]) for c in labels for _ in range(2)]
    test = [Datum(str(c), c, classname=names[c]) for c in reversed(labels)]
    train, test = BenchmarkDataset.subsample_classes(train, test, subsample=case["subsample"])
    assert capsys.readouterr().out.splitlines() == case["printed"]
    assert (len(train), len(test)) == (case["n_train"], case["n_test"])
    label_map = {int(item.impath): item.label for item in train}  # the path is the old label
    assert [list(pair) for pair in sorted(label_map.items())] == case["label_map"]
    assert [item.label for item in train][:8] == case["train_labels"]
    assert [item.label for item in test][:8] == case["test_labels_first"]
    dataset = DatasetBase(train_x=train, test=test)
    assert dataset.classnames == case["classnames"]
    assert [list(pair) for pair in dataset.lab2cname.items()] == case["lab2cname"]
    assert dataset.num_classes == case["num_classes"]


@pytest.mark.parametrize("case", GAPS, ids=case_id)
def test_labels_with_gaps(case):
    lists = [
        [Datum(label=label, classname=f"n{label}") for label in case[f"{part}_labels_before"]]
        for part in ("train", "test")
    ]
    lists = BenchmarkDataset.subsample_classes(*lists, subsample=case["subsample"])
    for part, items in zip(("train", "test"), lists):
        assert [[item.label, item.classname] for item in items] == case[part]
    dataset = DatasetBase(train_x=lists[0])
    assert (dataset.num_classes, dataset.classnames) == (case["num_classes"], case["classnames"])


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", DATA["split_trainval"], ids=case_id)
def test_split_of_training_and_validation(case, capsys):
    counts = case["class_counts"]
    order = case["round_robin_class_order"]
    if order is None:
        items = [(c, i) for c, count in enumerate(counts) for i in range(count)]
    else:
        items = [(c, i) for i in range(max(counts)) for c in order if i < counts[c]]
    data = [Datum(f"cls{c}/tv_{i:04d}.jpg", c) for c, i in items]
    random.seed(case["seed"])
    train, val = BenchmarkDataset.split_trainval(data, p_val=case["p_val"])
    assert (paths(train), paths(val)) == (case["train"], case["val"])
    assert random.random() == case["next_random"]
    assert capsys.readouterr().out.splitlines() == case["printed"]


@pytest.mark.parametrize(
    "case", SPLITS["results"], ids=lambda c: f"{c['seed']}-{list(c['kwargs'])}"
)
def test_split_of_a_folder(case, tmp_path, capsys):
    for folder, count in SPLITS["tree"].items():
        touch(tmp_path / "images" / folder, [f"{folder}_{i:04d}.jpg" for i in range(count)])
    (tmp_path / "images" / ".hidden").touch()
    random.seed(case["seed"])
    split = BenchmarkDataset.read_and_split_data(tmp_path / "images", **case["kwargs"])
    for part, items in zip(("train", "val", "test"), split):
        assert rows(items, tmp_path) == case[part]
    assert random.random() == case["next_random"]
    assert capsys.readouterr().out.splitlines() == case["printed"]


def touch(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


# --- the class EuroSAT, from split to few shots of the base classes -------------------------------


@pytest.fixture(params=DATA["eurosat_dataset_class"], ids=case_id)
def case(request) -> dict[str, Any]:
    return request.param


@pytest.fixture
def root(case, tmp_path) -> Path:
    """A folder with the images of a case, which are empty: the dataset does not open them."""
    for folder, count in case["class_counts"].items():
        names = [f"{folder}_{i}.jpg" for i in range(1, count + 1)]
        touch(tmp_path / "eurosat" / "2750" / folder, names)
    return tmp_path


def first_run(case: dict[str, Any], root: Path) -> list[list[Datum]]:
    """What upstream does without a split file: split and sample come from one stream."""
    folder = root / "eurosat" / "2750"
    random.seed(case["seed"])
    train, val, test = EuroSAT.read_and_split_data(folder, new_cnames=CLASSNAMES)
    EuroSAT.save_split(train, val, test, split_file(root), folder)
    shots = case["num_shots"]
    train = ANY_DATASET.generate_fewshot_dataset(train, num_shots=shots)
    val = ANY_DATASET.generate_fewshot_dataset(val, num_shots=min(shots, 4))
    return EuroSAT.subsample_classes(train, val, test, subsample=case["subsample"])


def split_file(root: Path) -> Path:
    return root / "eurosat" / "split_zhou_EuroSAT.json"


def later_run(case: dict[str, Any], root: Path) -> EuroSAT:
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    cfg.merge_from_list(["DATASET.ROOT", str(root), "DATASET.NUM_SHOTS", case["num_shots"]])
    cfg.merge_from_list(["SEED", case["seed"], "DATASET.SUBSAMPLE_CLASSES", case["subsample"]])
    return EuroSAT(cfg)


def check_stage(stage: dict[str, Any], lists: list[list[Datum]], root: Path) -> None:
    train, val, test = (rows(items, root / "eurosat") for items in lists)
    assert (train, val, len(test)) == (stage["train"], stage["val"], stage["n_test"])
    assert test[:5] == stage["test_first"]
    assert DatasetBase(train_x=lists[0]).classnames == stage["classnames"]


def check_printed(printed: str, expected: list[str], root: Path) -> None:
    """Our sample is kept as .json where upstream writes .pkl, and compared with published ones."""
    lines = printed.replace(str(root), "<ROOT>").splitlines()
    lines = [line for line in lines if not line.startswith(("Note:", "Few-shot sample"))]
    assert lines == [line.replace(".pkl", ".json") for line in expected]


def test_first_run(case, root, capsys):
    stage = case["stages"]["first_run_split_file_absent"]
    check_stage(stage, first_run(case, root), root)
    expected = [line for line in stage["printed"] if "preprocessed" not in line]
    check_printed(capsys.readouterr().out, expected, root)
    split = load_json(split_file(root))
    assert list(split) == case["split_json"]["keys"]
    assert split["train"][:3] == case["split_json"]["train_first3"]
    assert {part: len(items) for part, items in split.items()} == case["split_json"]["sizes"]


def test_second_and_third_run(case, root, capsys):
    """With the split file there, the sample is drawn afresh, and then read from the cache."""
    first_run(case, root)
    for name in ("second_run_split_file_present", "third_run_cached_fewshot"):
        capsys.readouterr()
        dataset = later_run(case, root)
        stage = case["stages"][name]
        check_printed(capsys.readouterr().out, stage["printed"], root)
        check_stage(stage, [dataset.train_x, dataset.val, dataset.test], root)
        assert dataset.classnames == stage["classnames"]


# --- the sample that the public implementation kept as a pickle -----------------------------------


def pickle_path(case: dict[str, Any], root: Path) -> Path:
    folder = root / "eurosat" / "split_fewshot"
    folder.mkdir()
    return folder / f"shot_{case['num_shots']}-seed_{case['seed']}.pkl"


def test_upstream_pickle_is_read(case, root, capsys):
    """It names absolute paths, perhaps of another machine; nothing is drawn."""
    first_run(case, root)
    train, val, _ = EuroSAT.read_split(split_file(root), "/elsewhere/data/eurosat/2750")
    other = random.Random(99)  # a sample that the seeds of the cases do not give
    stored = {
        part: ANY_DATASET.generate_fewshot_dataset(items, num_shots=4, rng=other)
        for part, items in (("train", train), ("val", val))
    }
    pickle_path(case, root).write_bytes(pickle.dumps(stored))
    capsys.readouterr()
    dataset = later_run({**case, "subsample": "all"}, root)
    for items, kept in ((dataset.train_x, stored["train"]), (dataset.val, stored["val"])):
        assert rows(items, root) == rows(kept, Path("/elsewhere/data"))
    printed = capsys.readouterr().out
    assert "Loading preprocessed few-shot data from" in printed
    assert "Creating" not in printed


def test_malicious_pickle_is_not_opened(case, root, capsys):
    first_run(case, root)
    trace = root / "executed"
    content = {"train": [CreatesFile(trace)], "val": []}
    pickle_path(case, root).write_bytes(pickle.dumps(content))
    capsys.readouterr()
    dataset = later_run(case, root)
    assert not trace.exists()
    assert "system" in capsys.readouterr().out
    stage = case["stages"]["second_run_split_file_present"]
    check_stage(stage, [dataset.train_x, dataset.val, dataset.test], root)
