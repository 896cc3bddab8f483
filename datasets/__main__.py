"""Lists, fetches, converts and checks datasets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from dassl.command import command
from dassl.utils.cli import run_cli
from dassl.utils.logger import talking
from dassl.utils.parsers import Parser
from datasets.manage.catalog import entries
from datasets.manage.commands import (
    convert,
    download,
    show_list,
    show_status,
    verify,
    verify_own,
)
from datasets.readers.roots import make_default_root, require_root

EXAMPLES = {
    "list": "the datasets, and how to get them",
    "download EuroSAT --root data": "94 MB, from its authors or a copy",
    "verify Folder --root ~/birds": "images of your own",
}
CODES = {1: "something is wrong", 2: "not there, or a mistake in what was given"}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(command("datasets"), __doc__, EXAMPLES, CODES, talks=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_list_and_status(commands)
    _add_download(commands)
    _add_convert(commands)
    _add_verify(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction, run: Callable, text: str, examples: dict[str, str]
) -> argparse.ArgumentParser:
    """Adds the command that is called like the last word of the function that does it."""
    name = run.__name__.removeprefix("show_")
    sub = commands.add_parser(name, help=text, text=text, examples=examples, exit_codes=CODES)
    sub.set_defaults(run=run)
    return sub


def _add_root(sub: argparse.ArgumentParser, named: bool = True) -> None:
    if named:
        sub.add_argument("name", metavar="NAME", help="a dataset's name, or all")
    sub.add_argument("--root", type=_path, required=True, help="folder that holds all datasets")


def _add_list_and_status(commands: argparse._SubParsersAction) -> None:
    _add(commands, show_list, "the datasets: classes, sizes, terms, how to get them", {"": ""})
    text = "what lies in a folder, and what is missing"
    _add_root(_add(commands, show_status, text, {"--root data": ""}), named=False)


def _add_download(commands: argparse._SubParsersAction) -> None:
    text = "fetch a dataset; what is there is never touched"
    examples = {
        "EuroSAT --root data": "",
        "DescribableTextures --root data --source mirror": "from the hub's copy",
        "all --root data --mirror /mnt/archives": "from a folder that has the archives",
    }
    sub = _add(commands, download, text, examples)
    _add_root(sub)
    sub.add_argument("--source", default="", help="official, mirror, ... (default: all, in order)")
    sub.add_argument(
        "--mirror", default="", help="folder or address that has the archives, instead of the net"
    )
    sub.add_argument("--keep-archives", action="store_true", help="do not delete them afterwards")
    sub.add_argument(
        "--unchecked", action="store_true", help="take files whose checksum is not the known one"
    )


def _add_convert(commands: argparse._SubParsersAction) -> None:
    text = "write the images of a hub's parquet files into a dataset's folder"
    examples = {
        "EuroSAT --from hub:timm/eurosat-rgb --root data": "fetched from the hub",
        "OxfordPets --from ~/pets --root data": "a folder of parquet files",
    }
    sub = _add(commands, convert, text, examples)
    _add_root(sub)
    sub.add_argument(
        "--from",
        dest="parquet",
        type=_path,
        required=True,
        help="parquet file, folder of some, or hub:NAME such as hub:timm/eurosat-rgb",
    )
    sub.add_argument(
        "--contents", type=_path, help="lines of sha256sum of the images: match by bytes, not names"
    )


def _add_verify(commands: argparse._SubParsersAction) -> None:
    examples = {
        "EuroSAT --root data": "",
        "all --root data --full": "every image of every dataset",
        "Folder --root ~/birds --set DATASET.CSV birds.csv": "images of your own",
    }
    sub = _add(commands, verify, "check a dataset, or Folder: images of your own", examples)
    _add_root(sub)
    sub.add_argument("--full", action="store_true", help="decode all images, not a sample")
    sub.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY VALUE",
        help="settings for Folder (images of your own), such as DATASET.CSV birds.csv",
    )
    sub.add_argument(
        "--seeds",
        type=int,
        nargs="*",
        default=[1, 2, 3],
        help="seeds whose few-shot samples are compared with the published ones (default: 1 2 3)",
    )


def _path(text: str) -> Path:
    return Path(text).expanduser()


def main(argv: list[str] | None = None) -> int:
    """Does one command and returns its exit code."""
    args = build_parser().parse_args(argv)
    name = getattr(args, "name", "all")
    with talking(args.quiet, args.verbose):
        if args.run is verify and name.lower() == "folder":
            return verify_own(args)
        chosen = entries(name)
        if args.run in (download, convert):
            make_default_root(args.root)
        if args.run in (download, convert, show_status):
            require_root(args.root)
        return args.run(args, chosen)


if __name__ == "__main__":
    sys.exit(run_cli(main))
