"""The linear probe: its search, its checkpoints, and a run through the engine."""

from pathlib import Path

import numpy as np
import pytest

from dassl.utils import CheckpointError, DataError
from dassl.utils.results import read_records
from tests.runs import log_lines, make_eurosat, run
from trainers import linear_probe
from trainers.linear_probe import fit, matching_rows, search

FEW = ("DATASET.NUM_SHOTS", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def clusters(n_cls: int, seed: int, per_class: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(seed)
    labels = np.repeat(np.arange(n_cls), per_class)
    centers = np.random.RandomState(0).randn(n_cls, 6)
    return centers[labels] + 0.6 * rng.randn(len(labels), 6), labels


@pytest.mark.slow
@pytest.mark.parametrize("n_cls", [2, 3, 5])
def test_search_keeps_the_model_of_its_last_step(n_cls: int):
    train, val = clusters(n_cls, 1), clusters(n_cls, 2)
    coefficients, intercepts, c = search(train, val)
    logits = val[0] @ coefficients.T + intercepts
    assert (logits.argmax(axis=1) == fit(train, c).predict(val[0])).all()


def test_search_visits_the_papers_values(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(linear_probe, "fit", lambda train, c: asked.append(c) or fit(train, c))
    search(clusters(3, 1), clusters(3, 2))
    assert asked[:7] == [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6]
    assert len(asked) == 7 + 2 * 8
    steps = np.log10(asked[7:]).reshape(8, 2)  # (left, right) of each step
    assert np.allclose(steps[:, 1] - steps[:, 0], 2.0 ** (1 - np.arange(8)))


def test_rows_are_found_by_name():
    assert matching_rows(["a", "b", "a", "c"], ["c", "a", "a"]) == [3, 0, 2]
    with pytest.raises(CheckpointError, match="without d"):
        matching_rows(["a", "b"], ["a", "d"])


def test_run_through_the_engine(data: Path, tmp_path: Path):
    flags = {"trainer": "LinearProbe", "subsample_classes": "base"}
    accuracy = run(data, tmp_path / "a", *FEW, **flags)
    record = next(read_records(tmp_path / "a" / "results.jsonl"))
    assert (record["metrics"]["accuracy"], record["epoch"]) == (accuracy, 1)
    assert "Finish training" in log_lines(tmp_path / "a")
    again = {"eval_only": True, "model_dir": str(tmp_path / "a"), "load_epoch": 1}
    assert run(data, tmp_path / "b", *FEW, **flags, **again) == accuracy


def test_new_classes_and_foreign_checkpoints_are_refused(data: Path, tmp_path: Path):
    flags = {"trainer": "LinearProbe", "eval_only": True, "load_epoch": 1}
    run(data, tmp_path / "probe", *FEW, trainer="LinearProbe")
    with pytest.raises(CheckpointError, match="only the classes it was trained on"):
        opts = {**flags, "model_dir": str(tmp_path / "probe"), "subsample_classes": "new"}
        run(data, tmp_path / "new", *FEW, **opts)
    run(data, tmp_path / "coop", *FEW, epoch=1)
    (tmp_path / "coop" / "prompt_learner").rename(tmp_path / "coop" / "linear_probe")
    with pytest.raises(CheckpointError, match="another method wrote it"):
        run(data, tmp_path / "x", *FEW, **flags, model_dir=str(tmp_path / "coop"))


def test_one_class_is_refused():
    with pytest.raises(DataError, match="at least two classes"):
        search((np.zeros((2, 3)), np.zeros(2)), (np.zeros((1, 3)), np.zeros(1)))
