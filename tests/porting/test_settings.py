"""Settings of somebody else's trainer: found beside it, and in force for it alone."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import pytest

import train
import trainers
from dassl.utils import ConfigError
from dassl.utils.plugins import extend_cfg_of
from dassl.utils.results import config_digest
from tests.runs import ROOT

# A repository's train.py: a program, of which only the settings are wanted.
TRAIN = """
import os
import no_such_library
import trainers.not_here
import datasets.oxford_pets
from dassl.config import get_cfg_default

NEW_LR = 0.25
os.environ["TOUCHED"] = "yes"
undefined()


def extend_cfg(cfg):
    from yacs.config import CfgNode as CN

    cfg.TRAINER.MINI = CN()
    cfg.TRAINER.MINI.DEPTH = 9
    cfg.OPTIM.NEW_LR = NEW_LR
    cfg.OPTIM.LR = 0.125


def setup_cfg(args):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.DEVICE = "cpu"
    cfg.OPTIM.LR = 99.0
    cfg.NO.SUCH = 1
    if args.more_words:
        cfg.WORDS = args.more_words
    return cfg


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--more-words", type=str, default="x", help="of the prompt")
    raise SystemExit("the program ran")
"""


def settings(trainer: str, *opts: str, config: Path | None = None) -> object:
    return train.setup_cfg(
        Namespace(
            trainer=trainer,
            dataset_config_file=str(ROOT / "configs/datasets/digits.yaml"),
            config_file=str(config or ""),
            opts=list(opts),
        )
    )


@pytest.mark.parametrize("name", ["train", "mini_head_cfg"])
def test_found_beside_the_trainer(foreign, monkeypatch, name: str):
    monkeypatch.delenv("TOUCHED", raising=False)
    foreign("mini_head", **{name: TRAIN})
    cfg = settings("MiniHead", "TRAINER.MINI.DEPTH", "2")
    assert (cfg.TRAINER.MINI.DEPTH, cfg.DEVICE, cfg.WORDS) == (2, "cpu", "x")
    assert (cfg.OPTIM.NEW_LR, cfg.OPTIM.LR) == (0.25, 0.125)
    assert "TOUCHED" not in os.environ


def test_the_own_file_wins(foreign):
    foreign("mini_head", train=TRAIN, mini_head_cfg="def extend_cfg(cfg):\n    cfg.MINE = 1\n")
    cfg = settings("MiniHead")
    assert cfg.MINE == 1 and "MINI" not in cfg.TRAINER


def test_in_the_trainer_itself(foreign):
    text = (Path(__file__).parent / "files/mini_head.py").read_text("utf-8")
    foreign("with_own", with_own=f"{text}\n\ndef extend_cfg(cfg):\n    cfg.OPTIM.LR = 0.5\n")
    assert settings("MiniHead").OPTIM.LR == 0.5
    assert settings("CoOp", "MODEL.BACKBONE.NAME", "tiny").OPTIM.LR == 0.0003


def test_yaml_may_name_the_trainer(foreign, tmp_path: Path):
    foreign("mini_head", train=TRAIN)
    path = tmp_path / "mini.yaml"
    path.write_text("TRAINER: {NAME: MiniHead, MINI: {DEPTH: 3}}\nOPTIM: {LR: 0.5}\n")
    cfg = settings("", config=path)
    assert (cfg.TRAINER.MINI.DEPTH, cfg.OPTIM.LR) == (3, 0.5)


@pytest.mark.parametrize("ours", ["CoOp", "CoCoOp", "ZeroshotCLIP"])
def test_our_methods_are_the_same_runs_as_without(foreign, ours: str):
    before = settings(ours, "MODEL.BACKBONE.NAME", "tiny")
    foreign("mini_head", train=TRAIN)
    after = settings(ours, "MODEL.BACKBONE.NAME", "tiny")
    assert after == before and config_digest(after) == config_digest(before)


FLAGS = """
import argparse


def add_flags(parser):
    parser.add_argument("--root", "-r", type=str)
    parser.add_argument("--depth-of", type=int, default=9)
    parser.add_argument("--both", action="store_true")
    parser.add_argument("--no-words", dest="words", action="store_const", default="a photo")


def {head}:
    cfg.TRAINER.MINI = type(cfg)(dict(DEPTH=args.depth_of, BOTH=args.both, WORDS=args.words))
    cfg.TRAINER.MINI.ROOT = args.root or "nowhere"


def reset_cfg(cfg, args):
    cfg.lambda_value = args.depth_of
    cfg.merge_from_list(args.opts)
    cfg.merge_from_list(settings_for(cfg.DATASET.NAME))
    cfg.freeze()
"""


@pytest.mark.parametrize("head", ["extend_cfg(cfg)", "extend_cfg(cfg, args)"])
def test_flags_of_its_command_line_have_their_defaults(tmp_path: Path, head: str, capsys):
    path = tmp_path / "x_cfg.py"
    path.write_text(FLAGS.format(head=head))
    cfg = train.get_cfg_default()
    extend_cfg_of(path)(cfg)
    expected = {"DEPTH": 9, "BOTH": False, "WORDS": "a photo", "ROOT": "nowhere"}
    assert dict(cfg.TRAINER.MINI) == expected
    assert cfg.lambda_value == 9 and not cfg.is_frozen()
    said = capsys.readouterr().out
    assert "line 20, `cfg.merge_from_list(settings_for(cfg.DATASET.NAME))`: that is not" in said
    assert said.count("merge_from_list") == 1


def test_what_the_public_train_py_declares_is_what_our_files_do():
    """Files that take the place of ours still find it."""
    from dassl.config import get_cfg_default

    for name, wanted in trainers.PUBLIC_SETTINGS.items():
        cfg = get_cfg_default()
        trainers.modules[name.lower()].extend_cfg(cfg)
        assert dict(cfg.TRAINER[name]) == wanted


BROKEN = {
    "def extend_cfg(cfg):\n    cfg.NO.SUCH = 1\n": r"extend_cfg of .*x_cfg.py failed: .*NO",
    "def extend_cfg(:\n": r"x_cfg.py cannot be read: ",
    "a = 1\n": r"x_cfg.py declares no settings: it has no function extend_cfg",
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken(tmp_path: Path, text: str):
    path = tmp_path / "x_cfg.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=BROKEN[text]):
        extend_cfg_of(path)(train.get_cfg_default())
