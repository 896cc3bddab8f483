"""Numbers that no setting may have, and numbers that are written as something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dassl.config import Config, get_cfg_default
from dassl.engine import config_problems
from dassl.optim import build_optimizer
from dassl.utils import ConfigError


def problems(*pairs: str) -> str:
    cfg = get_cfg_default()
    cfg.merge_from_list(list(pairs))
    return "\n".join(config_problems(cfg))


WRONG = [
    *(("OPTIM.MOMENTUM", value) for value in ("-1", "-0.1", "5")),
    *(("OPTIM.WEIGHT_DECAY", value) for value in ("-1", "-1e-9")),
    *(("OPTIM.GAMMA", value) for value in ("-2", "-0.1")),
    *((f"OPTIM.WARMUP_{name}", "-3") for name in ("CONS_LR", "MIN_LR")),
    *((f"OPTIM.{name}", "1.5") for name in ("ADAM_BETA1", "ADAM_BETA2", "RMSPROP_ALPHA")),
    *(("OPTIM.SGD_DAMPNING", "2"), ("OPTIM.BASE_LR_MULT", "-1"), ("OPTIM.LR", "-0.1")),
    *((f"DATALOADER.{part}.N_INS", value) for part in ("TRAIN_X", "TRAIN_U") for value in "0"),
    *(("DATALOADER.TRAIN_X.N_INS", "-3"), ("DATALOADER.TRAIN_U.BATCH_SIZE", "0")),
    *(("INPUT.SIZE", value) for value in ("(0, 0)", "(32.0, 32.0)", "(32.5, 32)", "(9,)", "()")),
    *(("INPUT.PIXEL_MEAN", value) for value in ("[]", "[0.1, 0.1]", "[0.5, 0.5, 0.5, 0.5]")),
    *(("INPUT.PIXEL_STD", value) for value in ("[0, 0, 0]", "[1, 1]", "[-1.0, 1, 1]", "[]")),
    *(("INPUT.RRCROP_SCALE", value) for value in ("(0, 0)", "(2, 3)", "(1, 0.5)", "(1,)", "()")),
    *(("INPUT.GB_K", value) for value in ("4", "-1", "0")),
    *((f"INPUT.{name}_P", value) for name in ("GB", "RGS") for value in ("7", "-1")),
    *((f"INPUT.COLORJITTER_{name}", "-1") for name in "BCSH"),
    *(("INPUT.COLORJITTER_H", "3"), ("INPUT.CROP_PADDING", "-4"), ("INPUT.GN_STD", "-1")),
    *((f"INPUT.{name}", "-1") for name in ("RANDAUGMENT_N", "CUTOUT_N", "CUTOUT_LEN")),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_numbers_that_no_setting_may_have(key, value):
    assert f"{key} is " in problems(key, value)
    assert f"{key} is " not in problems()


def test_settings_that_torch_refuses(tmp_path):
    import torch

    for name, key, value in (("sgd", "SGD_NESTEROV", True), ("adam", "ADAM_BETA1", 1.0)):
        cfg = get_cfg_default()
        cfg.OPTIM.NAME, cfg.OPTIM.MOMENTUM, cfg.OPTIM[key] = name, 0.0, value
        with pytest.raises(ConfigError, match=f"OPTIM does not suit the optimizer '{name}'"):
            build_optimizer(torch.nn.Linear(1, 1), cfg.OPTIM)


# --- lists ----------------------------------------------------------------------------------------

NO_NUMBERS = ["('a', 'b')", "(True, True)", "[None, 1]", "['1', 'x']", "((1, 2), 3)", "('', 1)"]


@pytest.mark.parametrize("key", ["INPUT.SIZE", "INPUT.PIXEL_MEAN", "OPTIM.STEPSIZE"])
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_lists_of_something_else_than_numbers(key, value):
    with pytest.raises(ConfigError, match=f"^{key} is .*expected numbers"):
        get_cfg_default().merge_from_list([key, value])


def read(tmp_path: Path, text: str) -> Config:
    cfg, path = get_cfg_default(), tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    cfg.merge_from_file(str(path))
    return cfg


def test_numbers_that_yaml_reads_as_texts(tmp_path):
    """A number without a point, such as 1e-3, is a text in YAML 1.1."""
    cfg = read(tmp_path, "OPTIM: {LR: 1e-3}\nINPUT: {PIXEL_STD: [1e-1, 2E-1, '0.3']}")
    assert cfg.OPTIM.LR == 0.001 and cfg.INPUT.PIXEL_STD == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("number", ["010", "-07", "1:30", "1:30.5", "1_000", "1_0.5", "0_1", "007"])
@pytest.mark.parametrize("place", ["OPTIM: {LR: %s}", "SEED: %s", "DATASET: {ROOT: %s}", "X: [%s]"])
def test_numbers_that_yaml_reads_as_others(tmp_path, number, place):
    """010 is 8 in YAML 1.1, 1:30 is 90; of a class that is called 007 it makes 7."""
    with pytest.raises(ConfigError, match=r"line 1: .* is another number in YAML than it seems"):
        read(tmp_path, place % number)
    assert read(tmp_path, f"DATASET: {{ROOT: '{number}'}}").DATASET.ROOT == number


def test_home_is_found_where_no_shell_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "own.yaml").write_text("OUTPUT_DIR: ~/runs/a\nRESUME: a~/b", encoding="utf-8")
    cfg = get_cfg_default()
    cfg.merge_from_file("~/own.yaml")
    cfg.merge_from_list(["MODEL.INIT_WEIGHTS", "~/w.pt"])
    assert Path(cfg.OUTPUT_DIR) == tmp_path / "runs" / "a"
    assert Path(cfg.MODEL.INIT_WEIGHTS) == tmp_path / "w.pt" and cfg.RESUME == "a~/b"
