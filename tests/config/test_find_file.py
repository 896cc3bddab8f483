"""Config files: mistyped ones are named with the nearest, ours are found from anywhere."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

import train
from dassl.config import find_config
from dassl.utils import ConfigError, MissingFileError
from tests.runs import ROOT

TINY = ROOT / "configs/trainers/CoOp/tiny.yaml"


@pytest.mark.parametrize(
    "given",
    [
        "configs/trainers/CoOp/tiny.yaml",
        "configs/trainers/CoOp/tiny",
        "CoOp/tiny.yaml",
        "CoOp/tiny",
    ],
)
def test_ours_are_found_from_anywhere(given: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(given) == str(TINY)
    assert find_config("digits") == str(ROOT / "configs/datasets/digits.yaml")


def test_a_file_of_one_s_own_comes_first(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CoOp").mkdir()
    (tmp_path / "CoOp/tiny.yaml").write_text("OPTIM: {LR: 1.0}\n")
    assert find_config("CoOp/tiny.yaml") == "CoOp/tiny.yaml"


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("configs/datasets/digts.yaml", "configs/datasets/digits.yaml"),
        ("digts", "configs/datasets/digits.yaml"),
        ("configs/trainers/CoOp/tiney.yaml", "configs/trainers/CoOp/tiny.yaml"),
        ("CoOp/vit_b16_ctx1.yaml", "configs/trainers/CoOp/vit_b16_ctxv1.yaml"),
        ("mine/recpie.yaml", "mine/recipe.yaml"),
    ],
)
def test_the_nearest_name(given: str, near: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/recipe.yaml").touch()
    with pytest.raises(MissingFileError, match="does not exist") as error:
        find_config(given)
    assert str(error.value).endswith(f"Did you mean {near}?")


def test_nothing_is_near():
    with pytest.raises(MissingFileError, match=r"qqqq\.yaml does not exist$"):
        find_config("qqqq.yaml")


def test_no_error_that_only_follows_from_another():
    given = {"trainer": "CoOpp", "dataset_config_file": "digts", "config_file": "CoOp/tiney"}
    with pytest.raises(ConfigError) as error:
        train.setup_cfg(Namespace(**given))
    lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines] == ["config", "config", "TRAINER.NAME"]
    assert "DATASET.NAME" not in str(error.value) and "BACKBONE" not in str(error.value)
