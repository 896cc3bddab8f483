"""The arguments that decide which runs there are, shared by several commands."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from dassl.utils import ConfigError
from dassl.utils.errors import not_one_of
from sweep.plan.own import found_below
from sweep.plan.request import Request, dataset_names
from sweep.plan.tables import TABLES


def add_request(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that decide which runs there are."""
    add = parser.add_argument
    names = ", ".join(TABLES)
    add("what", help=f"a protocol or a table of the papers: {names}")
    many: dict[str, Any] = {"nargs": "+", "default": []}
    add("--trainers", **many, help="registered trainers, or all; default: the papers'")
    add(
        "--datasets",
        **many,
        help="files in configs/datasets, default: the papers'; your own: folder (--root is its "
        "folder), or names of folders below --root",
    )
    add("--seeds", **many, type=int, help="default: 1 2 3")
    add("--shots", **many, type=int, help="training images a class; default: 16")
    add("--ctx", **many, dest="contexts", type=int, help="few-shot CoOp: context vectors, M")
    add(
        "--position",
        **many,
        dest="positions",
        help="few-shot CoOp: the class name's place",
    )
    add("--csc", **many, help="few-shot CoOp: class-specific context (True, False)")
    add("--backbone", default="", help="RN50, RN101, ViT-B/32, ViT-B/16 or tiny")
    add("--recipe", default="", help="config file in configs/trainers, such as CoOp/vit_b16")
    add("--source", default="", help="transfer: dataset to train on; default: imagenet")
    add("--per-epoch", action="store_true", help="base2new: also test the new classes each epoch")
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
    given = {field.name: getattr(args, field.name) for field in fields(Request)}
    if root := getattr(args, "root", ""):
        given["datasets"] = found_below(args.datasets, dataset_names(), root)
    csc = [switch[value.lower()] for value in args.csc]
    return Request.from_dict({**given, "what": what, "csc": csc})
