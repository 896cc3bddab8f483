"""Somebody else's program or notebook drives the engine: none of our own settings are declared."""

from __future__ import annotations

from pathlib import Path

import pytest

import datasets  # noqa: F401 - registers, as in the public train.py
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger
from dassl.utils.plugins import extend_cfg_of
from tests.porting.conftest import FEW, FILES, record
from tests.runs import ROOT


def configured(extend_cfg, trainer: str, root: Path, out: Path, subset: str):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.merge_from_file(str(ROOT / "configs/datasets/digits.yaml"))
    cfg.merge_from_list([*FEW, "OPTIM.MAX_EPOCH", "1", "INPUT.INTERPOLATION", "bicubic"])
    cfg.DATASET.ROOT, cfg.DATASET.SUBSAMPLE_CLASSES = str(root), subset
    cfg.TRAINER.NAME, cfg.MODEL.BACKBONE.NAME = trainer, "tiny"
    cfg.OUTPUT_DIR, cfg.SEED = str(out), 1
    cfg.INPUT.TRANSFORMS = ["random_resized_crop", "random_flip", "normalize"]
    cfg.freeze()
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MiniCoOp", "MiniMaPLe"])
def test_base_and_new(foreign, digits: Path, tmp_path: Path, name: str):
    extend_cfg = extend_cfg_of(FILES / "train.py")
    foreign({"MiniCoOp": "mini_coop", "MiniMaPLe": "mini_maple"}[name])
    outputs = tmp_path / "base", tmp_path / "new"
    for subset, out in zip(("base", "new"), outputs):
        cfg = configured(extend_cfg, name, digits, out, subset)
        set_random_seed(cfg.SEED)
        with setup_logger(cfg.OUTPUT_DIR):
            print(collect_env_info())
            trainer = build_trainer(cfg)
            if subset == "base":
                trainer.train()
            else:
                trainer.load_model(str(outputs[0]), epoch=1)
                trainer.test()
    assert [record(out)["classes"] for out in outputs] == ["base", "new"]


def test_a_cell_may_run_again(foreign):
    """As in a notebook: classes without a file, and `force=True` over one of ours."""
    source = (FILES / "mini_head.py").read_text("utf-8").replace("MiniHead", "CoOp")
    source = source.replace("register()", "register(force=True)")
    foreign("nothing", nothing="")  # undoes what is registered in the end
    for _ in range(2):
        cell = {"__name__": "__main__"}
        exec(compile(source, "<cell>", "exec"), cell)
    assert TRAINER_REGISTRY.get("CoOp") is cell["CoOp"]
