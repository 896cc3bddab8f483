"""Records that runs have left: some cannot be true, disagree, or are of another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweep.plan.run import Run
from sweep.work import kept
from sweep.work.folder import RunFolder
from tests.sweep.work.test_runner import TRAIN, record


@pytest.fixture(autouse=True)
def _said_anew():
    kept._said.clear()


def accuracy(run: Run, output: Path) -> float:
    return RunFolder(run, output).record()["metrics"]["accuracy"]


COUNTS = {"total": 200, "correct": 100}


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (float("nan"), {}),
        (float("inf"), {}),
        (-0.5, {}),
        (100.5, {}),
        (50.0, {"total": 200, "correct": 101}),
        (50.0, {"total": 0, "correct": 1}),
        (50.0, {"total": "200", "correct": 100}),
        (50.0, {"total": 200.0, "correct": 100.0}),
        (50.0, {**COUNTS, "per_class": [{"total": 200, "correct": 99}]}),
        (50.0, {**COUNTS, "per_class": [{"total": 200}]}),
        (50.0, {**COUNTS, "per_class": 3}),
        (50.0, {"metrics": []}),
        (50.0, {"metrics": {"accuracy": True}}),
        (50.0, {"metrics": {"accuracy": "50.0"}}),
    ],
)
def test_an_accuracy_that_cannot_be_true(number: float, changes: dict, tmp_path: Path, capsys):
    path = record(TRAIN, tmp_path, number, **changes)
    assert RunFolder(TRAIN, tmp_path).record() is None
    assert RunFolder(TRAIN, tmp_path).state() == "waiting"
    assert f"{path}: its record holds no accuracy" in capsys.readouterr().out
    record(TRAIN, tmp_path, 50.0, **COUNTS, per_class=[{"total": 200, "correct": 100}])
    assert accuracy(TRAIN, tmp_path) == 50.0


@pytest.mark.parametrize("earlier", [50.0, 40.0, float("nan")])
def test_records_that_disagree_are_said(earlier: float, tmp_path: Path, capsys):
    """As where results of two machines were put together; the last one counts."""
    path = record(TRAIN, tmp_path, earlier)
    lines = path.read_text()
    path = record(TRAIN, tmp_path, 50.0)
    path.write_text(lines + path.read_text())
    assert accuracy(TRAIN, tmp_path) == 50.0
    said = f"{path}: its records say 40.000%, 50.000%: the last one counts"
    assert (said in capsys.readouterr().out) == (earlier == 40.0)


@pytest.mark.parametrize("changes", [{"dataset": "DTD"}, {"classes": "new"}, {"shots": 4}])
def test_the_record_of_another_run_says_nothing(changes: dict, tmp_path: Path):
    record(TRAIN, tmp_path, **changes)
    assert RunFolder(TRAIN, tmp_path).record() is None


def test_an_evaluator_of_ones_own_may_count_in_its_own_way(tmp_path: Path, monkeypatch):
    settings = json.loads(json.dumps(TRAIN.settings))
    settings["TEST"]["EVALUATOR"] = "Mine"
    monkeypatch.setattr(Run, "settings", property(lambda _: settings))
    record(TRAIN, tmp_path, 50.0, total=3, correct=3)
    assert RunFolder(TRAIN, tmp_path).record() is not None
