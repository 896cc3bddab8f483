"""Puts files of somebody else's beside our methods, for one test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trainers
from dassl.engine import TRAINER_REGISTRY
from tests.runs import ROOT

FILES = Path(__file__).parent / "files"
FEW = ("DATASET.NUM_SHOTS", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "2", "INPUT.SIZE", "(32, 32)")
FEW = (*FEW, "DATALOADER.TEST.BATCH_SIZE", "100")  # of 400 to 500 images


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data set Digits lies; whoever trains first writes it."""
    return tmp_path_factory.mktemp("digits")


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Copies `tests/porting/files`, somebody's repository, and imports one as if from trainers/.

    The function takes the name of the trainer's file and, as keywords, texts of other files.
    """
    tables = (trainers.modules, TRAINER_REGISTRY._obj_map, TRAINER_REGISTRY._rivals, sys.modules)
    lists = (trainers.__path__, sys.path)
    before = [table.copy() for table in tables], [list(places) for places in lists]

    def put(name: str, **beside: str) -> Path:
        shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
        for other, text in beside.items():
            (tmp_path / f"{other}.py").write_text(text, encoding="utf-8")
        path = tmp_path / f"{name}.py"
        trainers.import_file(path)
        return path

    yield put
    for table, old in zip(tables, before[0]):
        for key in table.keys() - old.keys():
            del table[key]
        table.update(old)
    for places, old in zip(lists, before[1]):
        places[:] = old


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that runs as the project does, with a folder trainers/ of its own."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name in ("train.py", "clip.py"):
            shutil.copy(path, folder)
        elif path.is_dir() and (path / "__init__.py").exists() and path.name != "trainers":
            (folder / path.name).symlink_to(path)
    for name in ("configs", "compat"):
        (folder / name).symlink_to(ROOT / name)
    ours = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "trainers", folder / "trainers", ignore=ours)
    return folder


def python(folder: Path, *args: str) -> subprocess.CompletedProcess:
    """Runs Python in a folder, and returns what it said."""
    env = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True
    )


def record(folder: Path) -> dict:
    """Returns the latest record of an output folder."""
    return json.loads((folder / "results.jsonl").read_text(encoding="utf-8").splitlines()[-1])
