"""Datasets of one's own in a plan: `folder`, several by name, and what they are not taken for."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from dassl.utils import UnknownNameError
from sweep.cli import build_parser
from sweep.plan.arguments import request_of
from sweep.plan.own import found_below, is_own, own_name, place_below
from sweep.plan.recipes import COCOOP, COOP_WORDS, paper_name
from sweep.plan.request import Request, dataset_names
from sweep.plan.run import ROOT


def asked(*words: str) -> Request:
    args: Namespace = build_parser().parse_args(["run", "fewshot", *words])
    return request_of(args, args.what)


def test_several_by_name(tmp_path: Path):
    for name in ("birds", "old cars", "dtd"):
        (tmp_path / name).mkdir()
    names = ("birds", "old cars", "dtd", "eurosat")
    request = asked("--datasets", *names, "--root", str(tmp_path), "--trainers", "ZeroshotCLIP")
    assert request.datasets == ("folder/birds", "folder/old cars", "dtd", "eurosat")
    runs = {run.dataset: run for run in request.runs()}
    birds = runs["folder/birds"]
    args = birds.arguments(Path("out"), str(tmp_path))
    assert args.root == str(tmp_path / "birds")
    assert args.dataset_config_file == str(ROOT / "configs/datasets/folder.yaml")
    assert birds.folder(Path("out")).is_relative_to("out/train_all/folder/birds")
    assert birds.title.startswith("ZeroshotCLIP birds, all classes")
    assert runs["dtd"].arguments(Path("out"), str(tmp_path)).root == str(tmp_path)
    assert len({run.folder(Path("out")) for run in request.runs()}) == 4
    assert paper_name("folder/birds") == "birds"


def test_the_root_itself(tmp_path: Path):
    request = asked("--datasets", "folder", "--root", str(tmp_path))
    assert request.runs()[0].arguments(Path("out"), str(tmp_path)).root == str(tmp_path)


def test_a_table_needs_no_root():
    args = build_parser().parse_args(["table", "fewshot", "--datasets", "folder/birds"])
    assert request_of(args, args.what).datasets == ("folder/birds",)


@pytest.mark.parametrize(
    "name", ["brids", "folder/", "folder/../x", "folder/.", "folder/a/b", ".."]
)
def test_names_that_are_none(name: str, tmp_path: Path):
    (tmp_path / "birds").mkdir()
    with pytest.raises(UnknownNameError, match="Images of your own: folder"):
        asked("--datasets", name, "--root", str(tmp_path)).runs()


def test_known_names_stay(tmp_path: Path):
    (tmp_path / "dtd").mkdir()
    assert found_below(["dtd", "all", "none"], dataset_names(), str(tmp_path)) == [
        *("dtd", "all", "none")
    ]
    assert [is_own(name) for name in ("folder", "folder/x", "folders", "dtd")] == [
        *(True, True, False, False)
    ]
    assert (own_name("folder/x"), own_name("dtd")) == ("x", "dtd")
    assert place_below("folder/x", "") == "", "an identity knows no root"


@pytest.mark.parametrize("backbone", ["tiny", "RN50", "ViT-B/32"])
@pytest.mark.parametrize("method", [COOP_WORDS, COCOOP], ids=lambda method: method.label)
def test_the_backbone_that_is_asked_for_is_the_one_that_runs(method, backbone: str):
    """CoCoOp has recipes for ViT-B/16 alone; it used to run with that whatever was asked for."""
    flags = ("--backbone", backbone, "--trainers", method.trainer, "--datasets", "folder")
    args = build_parser().parse_args(["run", "base2new", *flags])
    run = request_of(args, args.what).runs()[0]
    assert run.settings["MODEL"]["BACKBONE"]["NAME"] == backbone
