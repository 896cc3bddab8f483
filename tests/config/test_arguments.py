"""Command lines that would be read otherwise than they are meant: one sentence."""

from __future__ import annotations

import pytest

import train
from dassl.utils import ConfigError
from tests.runs import ROOT

GIVEN = (
    *("--trainer", "CoOp"),
    *("--dataset-config-file", str(ROOT / "configs/datasets/digits.yaml")),
    *("--config-file", str(ROOT / "configs/trainers/CoOp/tiny.yaml")),
)


def configured(*words: str) -> object:
    return train.setup_cfg(train.build_parser().parse_args([*GIVEN, *words]))


@pytest.mark.parametrize(
    "words",
    [("--seed", "3"), ("--eval-only",), ("OPTIM.LR", "--seed", "3"), ("--seed=3", "OPTIM.LR")],
)
def test_flags_behind_pairs(words):
    flag = next(word for word in words if word.startswith("--"))
    with pytest.raises(ConfigError, match=f"{flag} stands behind KEY VALUE pairs"):
        configured("OPTIM.MAX_EPOCH", "3", *words)


@pytest.mark.parametrize("flag", ["--source-domains", "--target-domains", "--transforms"])
def test_flags_that_swallow_pairs(flag):
    with pytest.raises(ConfigError, match=f"{flag} took DATASET.NUM_SHOTS for one of its words"):
        configured(flag, "normalize", "DATASET.NUM_SHOTS", "1")
    cfg = configured(flag, "normalize", "--seed", "3", "DATASET.NUM_SHOTS", "1")
    assert cfg.SEED == 3 and cfg.DATASET.NUM_SHOTS == 1


@pytest.mark.parametrize("words", [("--model-dir", "output"), ("--load-epoch", "1")])
def test_flags_that_mean_nothing_without_eval_only(words):
    with pytest.raises(ConfigError, match=f"{words[0]} would be ignored without --eval-only"):
        configured(*words)
    configured(*words, "--eval-only")


def test_home_in_a_quoted_flag(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    args = train.build_parser().parse_args([*GIVEN, "--model-dir", "~/a", "--output-dir", "~/b"])
    assert args.model_dir == f"{tmp_path}/a"
    args.eval_only = True
    assert train.setup_cfg(args).OUTPUT_DIR == f"{tmp_path}/b"
