"""Runs of the size of ImageNet and whole sweeps: what would make the page too large is chosen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from yacs.config import CfgNode

from explore import accuracy, single
from explore.__main__ import page
from explore.accuracy import by_class
from explore.runs import Setting
from pages import Table
from pages.parts import TALL

BACKBONE = CfgNode({"NAME": "tiny", "PATH": ""})


def setting(name: str, dataset: str, correct: list[int], trainer: str = "CoOp") -> Setting:
    """Returns a setting of one run with 50 images of each class."""
    rows = [
        {"label": i, "name": f"class {i}", "total": 50, "correct": c} for i, c in enumerate(correct)
    ]
    cfg = SimpleNamespace(MODEL=SimpleNamespace(BACKBONE=BACKBONE))
    run = SimpleNamespace(
        record={"per_class": rows}, trainer=trainer, run=SimpleNamespace(cfg=cfg), folder="run"
    )
    return Setting(name, (dataset, "all"), [run])


def imagenet(n: int, dataset: str = "ImageNet") -> list[Setting]:
    """Zero-shot CLIP and a method that differs from it in two classes alone."""
    same = np.random.RandomState(0).randint(10, 40, n).tolist()
    other = [c + {3: 10, n - 1: -10}.get(i, 0) for i, c in enumerate(same)]
    return [
        setting("zero-shot CLIP", dataset, same, "ZeroshotCLIP"),
        setting("CoOp", dataset, other),
    ]


def test_all_classes_where_the_page_stays_small():
    section = by_class(imagenet(1000))
    (table,) = section.blocks
    assert len(table.rows) == 1000 and table.tall and not table.folded
    assert "too large" not in section.about


def test_else_those_on_which_methods_differ_most(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accuracy, "MOST_CELLS", 200)
    section = by_class(imagenet(1000))
    (table,) = section.blocks
    assert len(table.rows) == 50 and table.title == "ImageNet, all classes: 50 of them"
    names = [row[0].text for row in table.rows]
    assert {"class 3", "class 999"} <= set(names), "on these they differ"
    assert names.index("class 3") < names.index("class 999"), "in the order of the labels"
    assert "results.jsonl in a run's folder has all" in section.about


def test_of_many_tables_the_first_is_open():
    settings = [one for k in range(6) for one in imagenet(TALL + 1, f"data {k}")]
    tables = [block for block in by_class(settings).blocks if isinstance(block, Table)]
    assert [table.folded for table in tables] == [False] + [True] * 5


def test_pictures_are_shared_out(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(single, "gallery", lambda run, at_most: asked.append(at_most))
    runs = [SimpleNamespace(predictions=None, folder="x")] * 3
    monkeypatch.setattr(single, "missing", lambda runs: [])
    assert "too large" not in single.mistakes(runs, 12).about
    monkeypatch.setattr(single, "MOST_PICTURES", 9)
    assert "3 of each run: more would make the page too large" in single.mistakes(runs, 12).about
    assert asked == [12] * 3 + [3] * 3


def test_a_title_names_few_datasets(monkeypatch: pytest.MonkeyPatch, tmp_path):
    for part in ("_tables", "find_runs", "settings_of"):
        monkeypatch.setattr(f"explore.__main__.{part}", lambda *_: [])
    for module in (accuracy, single):
        for name in ("base_and_new", "by_class", "overview", "training", "calibration"):
            monkeypatch.setattr(module, name, lambda *_: None, raising=False)
    for name in ("confused", "mistakes"):
        monkeypatch.setattr(single, name, lambda *_: None)
    monkeypatch.setattr(single, "prompts", lambda *_: [])
    runs = [SimpleNamespace(dataset=f"data{k}") for k in range(4)]
    monkeypatch.setattr("explore.__main__.find_runs", lambda *_: runs)
    shown = page(["x"], tmp_path / "x.html")
    assert shown.title.endswith("CLIP: 4 datasets")
    assert shown.about.startswith("4 runs on data0, data1, data2, data3. ")
