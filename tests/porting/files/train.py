"""A repository's program, which declares the settings of its trainers."""

from dassl.config import get_cfg_default
from dassl.engine import build_trainer


def extend_cfg(cfg):
    from yacs.config import CfgNode as CN

    cfg.TRAINER.MINI = CN()
    cfg.TRAINER.MINI.N_CTX = 2
    cfg.TRAINER.MINI.CTX_INIT = "a photo"
    cfg.TRAINER.MINI.PREC = "fp32"
    cfg.TRAINER.MINI.DEPTH_VISION = 2
    cfg.TRAINER.MINI.DEPTH_TEXT = 2
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"


def main():
    cfg = get_cfg_default()
    extend_cfg(cfg)
    build_trainer(cfg).train()


if __name__ == "__main__":
    main()
