"""The flags of `train.py`, the keys they set, and examples."""

from __future__ import annotations

import argparse
from os.path import expanduser

from dassl.command import command
from dassl.utils.parsers import Parser, examples_text

# They need no download.
_ON_DIGITS = "--trainer CoOp --dataset-config-file digits --config-file CoOp/tiny"
EXAMPLES = {
    f"--root data --seed 1 {_ON_DIGITS} --output-dir output/coop DATASET.NUM_SHOTS 16": (
        "train CoOp on 16 images of each handwritten digit; no download"
    ),
    f"--root data --seed 1 {_ON_DIGITS} --output-dir output/coop-again --eval-only "
    "--model-dir output/coop": "test what was learned",
    f"--root data --seed 1 {_ON_DIGITS} --resume output/coop DATASET.NUM_SHOTS 16": (
        "go on where a training was interrupted"
    ),
}

# Named flags and the keys they set; the order is that of the public implementation.
FLAGS = {
    "root": "DATASET.ROOT",
    "output_dir": "OUTPUT_DIR",
    "resume": "RESUME",
    "seed": "SEED",
    "source_domains": "DATASET.SOURCE_DOMAINS",
    "target_domains": "DATASET.TARGET_DOMAINS",
    "transforms": "INPUT.TRANSFORMS",
    "trainer": "TRAINER.NAME",
    "backbone": "MODEL.BACKBONE.NAME",
    "backbone_path": "MODEL.BACKBONE.PATH",
    "head": "MODEL.HEAD.NAME",
    "train_batch_size": "DATALOADER.TRAIN_X.BATCH_SIZE",
    "epoch": "OPTIM.MAX_EPOCH",
    "subsample_classes": "DATASET.SUBSAMPLE_CLASSES",
}


def example() -> str:
    """Returns two commands to begin with."""
    return examples_text(command("train"), dict(list(EXAMPLES.items())[:2]))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        command("train"),
        "Trains or evaluates CoOp, CoCoOp, zero-shot CLIP or a method of your own.\n"
        "Flags win over config files; KEY VALUE pairs, last, win over flags.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("--root", default="", help="folder that holds the datasets")
    add("--output-dir", default="", help="where log, checkpoints and results go")
    add("--resume", default="", help="output folder of an interrupted run to continue")
    add("--seed", type=int, default=None, help="seeds everything; negative or absent: not seeded")
    add("--source-domains", nargs="+", help="source domains, for datasets with domains")
    add("--target-domains", nargs="+", help="target domains, for datasets with domains")
    add("--transforms", nargs="+", help="names of training transforms")
    add("--config-file", default="", help="YAML file of the method; CoOp/tiny is found, too")
    add("--dataset-config-file", default="", help="YAML file of the dataset; digits is found, too")
    add("--trainer", default="", help="CoOp, CoCoOp, ZeroshotCLIP, ZeroshotCLIP2, ...")
    add("--backbone", default="", help="name of a CLIP, such as ViT-B/16 or tiny")
    add("--backbone-path", default="", help="CLIP weights file of your own")
    add("--head", default="", help="name of a classification head, for methods that have one")
    add("--overwrite", action="store_true", help="delete what an earlier run left in --output-dir")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add("--model-dir", type=expanduser, default="", help="output folder of the run to evaluate")
    add("--load-epoch", type=int, help="epoch to evaluate; absent: the best, or the last")
    add("--no-train", action="store_true", help="build everything, then stop")
    add("--train-batch-size", type=int, help="images in a training batch")
    add("--epoch", type=int, help="number of epochs")
    add("--subsample-classes", help="all, base (first half of the classes) or new (the rest)")
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, such as OPTIM.LR 0.002")
    return parser
