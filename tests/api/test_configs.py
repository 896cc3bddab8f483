"""Every YAML file merges without a complaint, and recipes hold the papers' numbers."""

from pathlib import Path

import pytest

import datasets
import trainers
from dassl.config import get_cfg_default
from dassl.engine import config_problems
from tests.runs import ROOT, ours

FILES = ours((ROOT / "configs").rglob("*.yaml"))
UPSTREAM_COOP = (  # file → backbone, epochs, words to start from
    ("rn50", "RN50", 200, ""),
    ("rn50_ep50", "RN50", 50, ""),
    ("rn50_ep100", "RN50", 100, ""),
    ("rn50_ctxv1", "RN50", 200, "a photo of a"),
    ("rn50_ep50_ctxv1", "RN50", 50, "a photo of a"),
    ("rn50_ep100_ctxv1", "RN50", 100, "a photo of a"),
    ("rn101", "RN101", 200, ""),
    ("rn101_ep50", "RN101", 50, ""),
    ("vit_b16", "ViT-B/16", 200, ""),
    ("vit_b16_ctxv1", "ViT-B/16", 200, "a photo of a"),
    ("vit_b16_ep50", "ViT-B/16", 50, ""),
    ("vit_b16_ep50_ctxv1", "ViT-B/16", 50, "a photo of a"),
    ("vit_b32", "ViT-B/32", 200, ""),
    ("vit_b32_ep50", "ViT-B/32", 50, ""),
)


def config(*files: Path):
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    trainers.extend_cfg(cfg)
    for file in files:
        cfg.merge_from_file(str(file))
    return cfg


def test_there_are_files():
    assert len(FILES) >= 24


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_file_merges_and_says_what_it_is(path: Path):
    config(path)
    assert path.read_text(encoding="utf-8").startswith("# "), "a config file begins with a header"


@pytest.mark.parametrize(("name", "backbone", "epochs", "words"), UPSTREAM_COOP)
def test_recipe_of_coop(name: str, backbone: str, epochs: int, words: str):
    cfg = config(ROOT / f"configs/trainers/CoOp/{name}.yaml")
    assert (cfg.MODEL.BACKBONE.NAME, cfg.OPTIM.MAX_EPOCH) == (backbone, epochs)
    assert cfg.TRAINER.COOP.CTX_INIT == words
    assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.TEST.BATCH_SIZE) == (32, 100)
    _check_shared(cfg)


@pytest.mark.parametrize(
    ("name", "n_ctx", "words"),
    [("c4_ep10_batch1_ctxv1", 4, "a photo of a")]
    + [(f"c{n}_ep10_batch1", n, "") for n in (4, 8, 16)],
)
def test_recipe_of_cocoop(name: str, n_ctx: int, words: str):
    cfg = config(ROOT / f"configs/trainers/CoCoOp/vit_b16_{name}.yaml")
    assert (cfg.TRAINER.COCOOP.N_CTX, cfg.TRAINER.COCOOP.CTX_INIT) == (n_ctx, words)
    assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.OPTIM.MAX_EPOCH) == (1, 10)
    _check_shared(cfg)


def _check_shared(cfg):
    assert (cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.LR_SCHEDULER) == ("sgd", 0.002, "cosine")
    assert (cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.WARMUP_TYPE) == (1, "constant")
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-5
    assert (cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION) == ((224, 224), "bicubic")
    assert tuple(cfg.INPUT.TRANSFORMS) == ("random_resized_crop", "random_flip", "normalize")


def test_a_complete_configuration_has_no_problems():
    cfg = config(
        ROOT / "configs/datasets/eurosat.yaml", ROOT / "configs/trainers/CoOp/vit_b16.yaml"
    )
    cfg.TRAINER.NAME = "CoOp"
    assert config_problems(cfg) == []


@pytest.mark.parametrize("frequency", [-1, 0, 3])
def test_checkpoints_of_the_last_epoch_alone(frequency: int):
    """-1 is the default of some public repositories, and means 0."""
    cfg = config(ROOT / "configs/datasets/digits.yaml", ROOT / "configs/trainers/CoOp/tiny.yaml")
    cfg.merge_from_list(["TRAINER.NAME", "CoOp", "TRAIN.CHECKPOINT_FREQ", frequency])
    assert config_problems(cfg) == []
