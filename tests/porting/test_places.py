"""Somebody else's files in a clone: in place of ours, beside ours, and a folder clip/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trainers
from dassl.utils.results import config_digest
from encoders.openai import PACKAGE
from tests.porting.conftest import FEW, FILES, python
from tests.porting.test_settings import TRAIN, settings
from tests.runs import ROOT, ours

SETTINGS = """
from argparse import Namespace
import train, trainers
from dassl.utils.results import config_digest

assert {"coop", "cocoop", "zsclip"} <= trainers.modules.keys(), trainers.failed_imports
digits = "configs/datasets/digits.yaml"
opts = ["MODEL.BACKBONE.NAME", "tiny"]
def cfg(name):
    return train.setup_cfg(Namespace(trainer=name, dataset_config_file=digits, opts=opts))
print(cfg("CoOp").TRAINER.COOP.CLASS_TOKEN_POSITION, cfg("CoOp").OPTIM.LR, cfg("CoOp").DEVICE)
print(config_digest(cfg("CoCoOp")))
"""


@pytest.mark.slow
def test_a_file_in_place_of_ours(clone: Path):
    """It has our keys, and those of the train.py beside it; the other methods are as ever."""
    text = (FILES / "mini_head.py").read_text("utf-8")
    (clone / "trainers/coop.py").write_text(text.replace("MiniHead", "CoOp"))
    (clone / "trainers/train.py").write_text(TRAIN)
    done = python(clone, "-c", SETTINGS)
    assert done.returncode == 0, done.stderr
    of_theirs, of_ours = done.stdout.splitlines()[-2:]
    assert of_theirs == "end 0.125 cpu"
    assert of_ours == config_digest(settings("CoCoOp", "MODEL.BACKBONE.NAME", "tiny"))


@pytest.mark.slow
def test_a_clip_folder_in_the_root(clone: Path, digits: Path, tmp_path: Path):
    """Their files get theirs, which knows the embedded CLIP too; our methods need it not."""
    installed = Path(sys.modules[PACKAGE].__file__).parent
    shutil.copytree(installed, clone / "clip", ignore=shutil.ignore_patterns("__pycache__"))
    text = (clone / "clip/clip.py").read_text("utf-8")
    folder = f"root: str = {str(tmp_path / 'downloads')!r}"
    text = text.replace("def _download(url: str, root: str)", f"def _download(url: str, {folder})")
    (clone / "clip/clip.py").write_text(f"{text}\nMARK = 'theirs'\n", "utf-8")
    for name in ("mini_coop", "mini_parts", "train"):
        shutil.copy(FILES / f"{name}.py", clone / "trainers")
    with (clone / "trainers/mini_coop.py").open("a") as file:
        file.write("\n\nfrom clip import clip\nassert clip.MARK == 'theirs'\n")
    args = ["train.py", "--root", str(digits), "--config-file", "configs/trainers/tiny.yaml"]
    args += ["--dataset-config-file", "configs/datasets/digits.yaml", "--epoch", "1"]
    for trainer in ("MiniCoOp", "CoOp"):
        out = ["--output-dir", str(tmp_path / trainer), "--trainer", trainer]
        done = python(clone, *args, *out, *FEW)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / trainer / "results.jsonl").exists()
    assert list((tmp_path / "downloads").glob("*.pt"))


def test_a_clip_folder_for_one_trainer(foreign, tmp_path: Path):
    """Beside its file, as NAME_clip/: the other trainers have the one that all have."""
    installed = Path(sys.modules[PACKAGE].__file__).parent
    shutil.copytree(installed, tmp_path / "mini_own_clip")
    with (tmp_path / "mini_own_clip/model.py").open("a") as file:
        file.write("\n\ndef build_model(state_dict):\n    return 'theirs'\n")
    text = "from clip import clip\nfrom clip.model import build_model\n"
    foreign("mini_own", mini_own=text + "assert build_model({}) == clip.build_model({})\n")
    theirs = trainers.modules["mini_own"].clip
    assert theirs.build_model({}) == "theirs" and theirs._MODELS["tiny-512"].startswith("file:")
    foreign("other", other="from clip import clip\n")
    assert trainers.modules["other"].clip.__file__.endswith("compat/clip/clip.py")
    (tmp_path / "mini_own_clip/clip.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        foreign("mini_own")
    assert sys.modules["clip.clip"] is trainers.modules["other"].clip


def test_files_that_are_not_ours_are_left_out_of_tests_of_ours(tmp_path: Path):
    for name in ("mine.py", "theirs.py"):
        (tmp_path / name).touch()
    assert len(ours(tmp_path.glob("*.py"), tmp_path)) == 2, "without git, all are ours"
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "add", "mine.py"], check=True)
    assert ours(tmp_path.glob("*.py"), tmp_path) == [tmp_path / "mine.py"]


def test_our_files_are_found():
    assert ROOT / "trainers/coop.py" in ours((ROOT / "trainers").glob("*.py"))
