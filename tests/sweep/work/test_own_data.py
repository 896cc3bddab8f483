"""A sweep over images of one's own: what is said before it starts, and the way to its report."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dassl.data.datasets import build_dataset
from dassl.utils import ConfigError
from datasets.digits import write_images
from sweep.cli import main
from sweep.plan.request import Request
from sweep.work.own_data import embedded_note, prepare_own_data
from tests.datasets.helpers_folder import make_cfg, make_classes

TINY = {"trainers": ("ZeroshotCLIP",), "backbone": "tiny"}


def test_the_split_is_kept_and_shown(tmp_path: Path):
    make_classes(tmp_path / "data/birds", 10)
    runs = Request("fewshot", datasets=("folder/birds",), **TINY).runs()
    said, note = prepare_own_data(runs, str(tmp_path / "data"), tmp_path / "out")
    path = tmp_path / "out/splits/birds.csv"
    assert said.startswith("birds: 4 classes; 20 train, 8 val, 12 test images. The split is kept")
    assert str(path) in said
    assert "birds" in note and "glyphs" in note and "--backbone ViT-B/16" in note
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and {row["split"] for row in rows} == {"train", "val", "test"}

    def paths(dataset) -> list[str]:
        return [item.impath for part in (dataset.train_x, dataset.test) for item in part]

    root = str(tmp_path / "data/birds")
    drawn = build_dataset(make_cfg(NAME="Folder", ROOT=root))
    again = build_dataset(make_cfg(NAME="Folder", ROOT=root, CSV=str(path)))
    assert sorted(paths(again)) == sorted(paths(drawn)), "DATASET.CSV gives the same split"


@pytest.mark.parametrize("classes", [2, 3])
def test_too_few_classes_for_new_ones(classes: int, tmp_path: Path):
    make_classes(tmp_path, 4, ("a", "b", "c")[:classes])
    runs = Request("base2new", datasets=("folder",)).runs()
    with pytest.raises(ConfigError, match=f"folder has {classes} classes; from base to new"):
        prepare_own_data(runs, str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    few_shot = Request("fewshot", datasets=("folder",)).runs()
    assert prepare_own_data(few_shot, str(tmp_path), tmp_path / "out")


def test_the_embedded_clip_knows_the_digits_alone():
    assert embedded_note(Request("demo").runs()) == []
    assert embedded_note(Request("fewshot", datasets=("folder",)).runs()) == [], "a real CLIP"
    assert "dtd" in embedded_note(Request("fewshot", datasets=("dtd",), **TINY).runs())[0]


@pytest.mark.slow
def test_from_two_folders_to_a_report(tmp_path: Path, capsys):
    write_images(tmp_path / "digits")
    for number, name in enumerate(("small", "large")):
        for folder in sorted((tmp_path / "digits").iterdir())[1:][number::2][:4]:
            target = tmp_path / "own" / name / folder.name
            target.mkdir(parents=True)
            for image in sorted(folder.iterdir())[:10]:
                (target / image.name).write_bytes(image.read_bytes())
    flags = ["--datasets", "small", "large", "--root", str(tmp_path / "own"), "--shots", "2"]
    flags += ["--trainers", "ZeroshotCLIP", "CoOp", "--seeds", "1", "--backbone", "tiny"]
    flags += ["--output", str(tmp_path / "out")]
    assert main(["run", "fewshot", *flags, "--jobs", "1", "--opts", "OPTIM.MAX_EPOCH", "1"]) == 0
    out = capsys.readouterr().out
    assert "All 4 runs are finished." in out and "small: 4 classes" in out
    assert main(["report", "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "small" in page and "large" in page and "splits/small.csv" in page
    assert "glyphs" in page
    assert main(["status", "--output", str(tmp_path / "out")]) == 0
    assert "4 finished" in capsys.readouterr().out
