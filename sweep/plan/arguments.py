"""The arguments that decide which runs there are, shared by several commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from dassl.utils import ConfigError
from dassl.utils.errors import not_one_of
from sweep.plan.request import Request
from sweep.plan.tables import TABLES


def add_request(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that decide which runs there are."""
    add = parser.add_argument
    names = ", ".join(TABLES)
    add("what", help=f"a protocol or a table of the papers: {names}")
    add(
        "--trainers",
        nargs="+",
        default=[],
        help="registered trainers, or all; default: the papers'",
    )
    add("--datasets", nargs="+", default=[], help="files in configs/datasets; default: the papers'")
    add("--seeds", nargs="+", type=int, default=[], help="default: 1 2 3")
    add("--shots", nargs="+", type=int, default=[], help="training images a class; default: 16")
    add("--ctx", nargs="+", type=int, default=[], help="few-shot CoOp: context vectors, M")
    add("--position", nargs="+", default=[], help="few-shot CoOp: class name's place (end, middle)")
    add("--csc", nargs="+", default=[], help="few-shot CoOp: class-specific context (True, False)")
    add("--backbone", default="", help="RN50, RN101, ViT-B/32 or ViT-B/16")
    add("--recipe", default="", help="config file in configs/trainers, such as CoOp/vit_b16")
    add("--source", default="", help="transfer: dataset to train on; default: imagenet")
    add(
        "--per-epoch", action="store_true", help="base2new: also test each epoch on the new classes"
    )
    add("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for all runs; last")
    add("--output", type=Path, default=Path("output/sweep"), help="where all results go")


def request_of(args: argparse.Namespace, what: str) -> Request:
    """Returns the request of parsed arguments.

    Raises:
        ConfigError: --csc is neither True nor False.
    """
    switch = {"true": True, "yes": True, "false": False, "no": False}
    for value in args.csc:
        if value.lower() not in switch:
            raise ConfigError(not_one_of("--csc", value, ("True", "False")))
    lists = {key: tuple(getattr(args, key)) for key in ("trainers", "datasets", "seeds", "shots")}
    return Request(
        what,
        **lists,
        contexts=tuple(args.ctx),
        positions=tuple(args.position),
        csc=tuple(switch[value.lower()] for value in args.csc),
        backbone=args.backbone,
        recipe=args.recipe,
        source=args.source,
        opts=tuple(args.opts),
        per_epoch=args.per_epoch,
    )
