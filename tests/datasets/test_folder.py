"""Images of your own: layouts, CSV files, names"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import train
from dassl.utils import DataError
from datasets.readers.image_checks import ImageChecks
from datasets.readers.image_tree import ImageTree
from datasets.readers.pictures import PictureReader
from tests.datasets.helpers_folder import (
    BIRDS,
    ROOT,
    csv_rows,
    draw,
    load,
    make_classes,
    make_root,
    make_split,
    paths,
    sizes,
    write_csv,
)


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


# --- folders --------------------------------------------------------------------------------------


def test_train_val_test(tmp_path):
    made = load(make_split(tmp_path, train=5, val=2, test=3))
    assert sizes(made) == (20, 8, 12)
    assert made.classnames == list(BIRDS) and made.num_classes == 4
    assert paths(made.train_x, tmp_path)[:6] == [
        *(f"train/crow/{i:02d}.jpg" for i in range(5)),
        "train/house_sparrow/00.jpg",
    ]
    assert [item.label for item in made.test] == [c for c in range(4) for _ in range(3)]
    assert made.template == "a photo of a {}."


@pytest.mark.parametrize("name", ["valid", "Validation", "VAL"])
def test_other_names_of_the_validation_folder(tmp_path, name):
    assert sizes(load(make_split(tmp_path, **{"Train": 5, name: 2, "TEST": 3}))) == (20, 8, 12)


def test_val_is_drawn_from_train(tmp_path):
    root = make_split(tmp_path, train=10, test=3)
    made = load(root)
    assert sizes(made) == (32, 8, 12)
    assert all(p.startswith("train/") for p in paths(made.val, root))
    drawn = paths(made.train_x, root) + paths(made.val, root)
    assert sorted(drawn) == [f"train/{c}/{i:02d}.jpg" for c in BIRDS for i in range(10)]


def test_a_single_training_image_is_not_taken_for_val(tmp_path):
    assert sizes(load(make_split(tmp_path, train=1, test=1))) == (4, 0, 4)
    assert sizes(load(make_split(tmp_path, train=2, test=1))) == (4, 4, 4)


@pytest.mark.parametrize(("n", "expected"), [(3, (1, 1, 1)), (10, (5, 2, 3)), (20, (10, 4, 6))])
def test_class_folders_are_split(tmp_path, n, expected):
    made = load(make_classes(tmp_path, n))
    assert sizes(made) == tuple(4 * k for k in expected)
    parts = [set(paths(items, tmp_path)) for items in (made.train_x, made.val, made.test)]
    assert len(set.union(*parts)) == 4 * n


def test_the_split_is_the_same_elsewhere_and_for_other_classes(tmp_path):
    here, there = make_classes(tmp_path / "a"), make_classes(tmp_path / "b" / "c")
    lists = [paths(items, here) for items in (load(here).train_x, load(here).test)]
    assert lists == [paths(items, there) for items in (load(there).train_x, load(there).test)]
    assert lists[1][:3] == ["crow/04.jpg", "crow/05.jpg", "crow/08.jpg"]  # recorded once
    shutil.rmtree(there / "jay")
    make_classes(there, classes=("albatross",))
    kept = [p for p in paths(load(there).test, there) if not p.startswith("albatross")]
    assert kept == [p for p in lists[1] if not p.startswith("jay")]


def test_which_files_are_images(tmp_path):
    make_classes(tmp_path, 3)
    for name in ("a.JPEG", "b.png", "c.BMP", "d.webp", "e.gif", "f.tif", "sub/deep/g.tiff"):
        draw(tmp_path / "crow" / name)
    for name in (".hidden.jpg", "notes.txt", "x.jpg.part", ".cache/h.jpg"):
        (tmp_path / "crow" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "crow" / name).write_text("not an image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("hello")
    found = ImageTree(str(tmp_path), ImageChecks(PictureReader().check)).below(
        str(tmp_path / "crow")
    )
    names = [Path(p).relative_to(tmp_path / "crow").as_posix() for p in found]
    assert names == [
        *("00.jpg", "01.jpg", "02.jpg", "a.JPEG", "b.png", "c.BMP", "d.webp", "e.gif", "f.tif"),
        "sub/deep/g.tiff",
    ]
    assert load(tmp_path).classnames == list(BIRDS)


def test_a_class_may_be_called_train(tmp_path):
    root = make_classes(tmp_path, 4, ("bus", "train", "test"))
    assert load(root).classnames == ["bus", "test", "train"]


def test_other_alphabets_and_blanks(tmp_path):
    root = make_classes(tmp_path / "Vögel und mehr", 4, ("Zaunkönig", "カラス", "blue tit"))
    assert load(root).classnames == ["Zaunkönig", "blue tit", "カラス"]


# --- few shots, base and new ----------------------------------------------------------------------


def test_few_shot_sample_is_kept_and_its_folder_is_no_class(tmp_path, capsys):
    root = make_classes(tmp_path, 20)
    first = load(root, NUM_SHOTS=2)
    assert sizes(first) == (8, 8, 24)
    manifest = root / "split_fewshot" / "shot_2-seed_1.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert [row[0] for row in content["train"]] == paths(first.train_x, root)
    capsys.readouterr()
    again = load(root, NUM_SHOTS=2)
    assert "Loading preprocessed few-shot data" in capsys.readouterr().out
    assert paths(again.train_x, root) == paths(first.train_x, root)
    assert again.num_classes == 4
    assert paths(load(root, NUM_SHOTS=2, SEED=2).train_x, root) != paths(first.train_x, root)


def test_classes_with_fewer_images_than_shots_are_said(tmp_path, capsys):
    make_classes(tmp_path / "train", 9)
    make_classes(tmp_path / "train", 3, ("owl",))
    make_classes(tmp_path / "test", 2, (*BIRDS, "owl"))
    make_classes(tmp_path / "val", 1, (*BIRDS, "owl"))
    assert len(load(tmp_path, NUM_SHOTS=4).train_x) == 4 * 4 + 3
    said = "all images are taken where a class has fewer than 4 to train on: owl (3)"
    assert said in capsys.readouterr().out
    load(tmp_path, NUM_SHOTS=2)
    assert "fewer than" not in capsys.readouterr().out


@pytest.mark.parametrize(("subset", "n"), [("base", 2), ("new", 2), ("new", 3)])
def test_one_class_alone_is_no_task(tmp_path, subset, n):
    """Every image of it would be right."""
    make_classes(tmp_path, 3, BIRDS[:n])
    with pytest.raises(DataError, match=rf"SUBSAMPLE_CLASSES {subset} leaves 1 of {n} classes"):
        load(tmp_path, SUBSAMPLE_CLASSES=subset)


def test_base_and_new(tmp_path):
    root = make_classes(tmp_path, 10, (*BIRDS, "zander"))
    base, new = (load(root, SUBSAMPLE_CLASSES=part) for part in ("base", "new"))
    assert base.classnames == ["crow", "house_sparrow", "jay"]
    assert new.classnames == ["wren", "zander"]
    assert {item.label for item in new.test} == {0, 1}


def test_a_root_that_cannot_be_written(tmp_path, monkeypatch):
    root = make_classes(tmp_path / "birds")
    (root / "split_fewshot").write_text("a file here makes the folder impossible, even for root")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert sizes(load(root, NUM_SHOTS=1)) == (4, 4, 12)


# --- CSV ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_root", [True, False])
def test_csv(root, with_root):
    file = write_csv(root / "birds.csv", [*csv_rows(), ""])
    made = load(root, CSV="birds.csv") if with_root else load(CSV=str(file))
    assert sizes(made) == (4, 2, 2) and made.classnames == ["crow", "jay"]
    assert paths(made.test, root) == ["crow/03.jpg", "jay/03.jpg"]
    assert sizes(load(root, CSV="birds.csv", NUM_SHOTS=1)) == (2, 2, 2)
    assert (root / "split_fewshot").is_dir()


def test_csv_without_split_or_val(root):
    without = [line.rpartition(",")[0] for line in csv_rows()]
    assert sizes(load(root, CSV=str(write_csv(root / "a.csv", without, "path,label")))) == (4, 2, 2)
    no_val = [line.replace("valid", "train") for line in csv_rows()]
    assert sizes(load(root, CSV=str(write_csv(root / "b.csv", no_val)))) == (4, 2, 2)


def test_csv_as_spreadsheets_write_it(root):
    lines = [line.replace("/", "\\").replace(",", ";") for line in csv_rows()]
    (root / "birds.csv").write_bytes(
        ("\ufeff" + "\r\n".join(["Path; Label ;SPLIT", *lines])).encode()
    )
    assert sizes(load(root, CSV="birds.csv")) == (4, 2, 2)


def test_csv_with_full_paths_outside_of_the_root(root, tmp_path):
    lines = [f"{root}/{line}" for line in csv_rows()]
    (tmp_path / "elsewhere").mkdir()
    file = write_csv(tmp_path / "elsewhere" / "birds.csv", lines)
    assert sizes(load(CSV=str(file), NUM_SHOTS=1)) == (2, 2, 2)
    assert (tmp_path / "elsewhere" / "split_fewshot" / "shot_1-seed_1.json").is_file()


def test_labels_that_are_numbers(root, capsys):
    lines = [line.replace(",crow,", ",10,").replace(",jay,", ",2,") for line in csv_rows()]
    more = [f"crow/00.jpg,{n},train" for n in (0, 1, 3, 4, 5, 6, 7, 8, 9)]
    for i, line in enumerate(more):
        shutil.copy(root / "crow/00.jpg", root / f"{i}.jpg")
        more[i] = line.replace("crow/00.jpg", f"{i}.jpg")
    file = write_csv(root / "n.csv", lines + more)
    made = load(root, CSV=str(file))
    assert made.classnames == [str(n) for n in range(11)]  # 2 comes before 10
    assert "give names with DATASET.CLASSNAMES" in capsys.readouterr().out
    assert load(root, CSV=str(file), CLASSNAMES=list("abcdefghijk")).classnames[10] == "k"


# --- names and template ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [["a", "b", "c d", "e"], "a,b,c d,e", "names.json", "names.txt", "pairs.json"]
)
def test_class_names_in_label_order(tmp_path, given):
    root = make_classes(tmp_path, 3)
    (root / "names.json").write_text(json.dumps(["a", "b", "c d", "e"]))
    (root / "names.txt").write_text("a\nb\n\nc d\ne\n")
    (root / "pairs.json").write_text(json.dumps(dict(zip(BIRDS, ["a", "b", "c d", "e"]))))
    assert load(root, CLASSNAMES=given).classnames == ["a", "b", "c d", "e"]


@pytest.mark.parametrize("text", ["crow raven\njay blue jay\n", "crow\traven\njay\tblue jay\n"])
def test_some_class_names_by_folder(tmp_path, text):
    root = make_classes(tmp_path, 3)
    (tmp_path / "map.txt").write_text(text)
    expected = ["raven", "house_sparrow", "blue jay", "wren"]
    assert load(root, CLASSNAMES=str(tmp_path / "map.txt")).classnames == expected


def test_names_do_not_change_the_split(tmp_path):
    root = make_classes(tmp_path)
    plain, named = load(root), load(root, CLASSNAMES="d,c,b,a")
    assert paths(plain.test, root) == paths(named.test, root)


def test_template(tmp_path):
    made = load(make_classes(tmp_path, 3), TEMPLATE="a photo of a {}, a type of bird.")
    assert made.template == "a photo of a {}, a type of bird."


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "recipe"),
    [
        ("CoOp", "CoOp/vit_b16_ctxv1"),
        ("CoCoOp", "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"),
        ("ZeroshotCLIP", "CoOp/vit_b16"),
        ("ZeroshotCLIP2", "CoOp/vit_b16"),
    ],
)
def test_every_trainer_on_own_images(tmp_path, trainer, recipe):
    """The command of docs/own_data.md, with the embedded CLIP."""
    root = make_classes(tmp_path / "my_birds", 6)
    words = f"--trainer {trainer} --config-file {ROOT}/configs/trainers/{recipe}.yaml --seed 1"
    words += f" --dataset-config-file {ROOT}/configs/datasets/folder.yaml --backbone tiny --epoch 1"
    words += f" --root {root} --output-dir {tmp_path}/out --subsample-classes base"
    words += " DATASET.NUM_SHOTS 2 INPUT.SIZE (32,32) DATALOADER.NUM_WORKERS 2"
    template = "a photo of a {}, a type of bird."
    arguments = [*words.split(), "DATASET.CLASSNAMES", "a,b,c d,e", "DATASET.TEMPLATE", template]
    accuracy = train.main(train.build_parser().parse_args(arguments))
    assert 0 <= accuracy <= 100
    record = json.loads((tmp_path / "out/results.jsonl").read_text().splitlines()[-1])
    assert record["dataset"] == "Folder" and record["classes"] == "base"
    assert [row["name"] for row in record["per_class"]] == ["a", "b"]
