"""Lists, fetches, converts and checks datasets: `python -m datasets COMMAND ...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dassl.utils.cli import run_cli
from datasets.manage.catalog import entries
from datasets.manage.commands import (
    convert_parquet,
    download,
    show_list,
    show_status,
    verify,
    verify_own,
)

EXAMPLES = """examples:
  python -m datasets list
  python -m datasets download EuroSAT --root data
  python -m datasets verify Folder --root ~/birds      images of your own

exit code: 0 OK, 1 something is wrong, 2 not there, or a mistake in what was given"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    def common(sub: argparse.ArgumentParser, named: bool) -> None:
        if named:
            sub.add_argument("name", metavar="NAME", help="a dataset's name, or all")
        sub.add_argument("--root", type=_path, required=True, help="folder that holds all datasets")

    command("list", show_list, "the datasets: classes, sizes, terms, how to get them")
    common(command("status", show_status, "what lies in a folder, and what is missing"), False)

    sub = command("download", download, "fetch a dataset; what is there is never touched")
    common(sub, True)
    sub.add_argument("--source", default="", help="official, mirror, ... (default: all, in order)")
    sub.add_argument(
        "--mirror", default="", help="folder or address that has the archives, instead of the net"
    )
    sub.add_argument("--keep-archives", action="store_true", help="do not delete them afterwards")
    sub.add_argument(
        "--unchecked", action="store_true", help="take files whose checksum is not the known one"
    )

    sub = command(
        "convert",
        convert_parquet,
        "write the images of a hub's parquet files into a dataset's folder",
    )
    common(sub, True)
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

    sub = command(
        "verify", verify, "check a dataset, or Folder; exit code 0: OK, 1: wrong, 2: not there"
    )
    common(sub, True)
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
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    args = build_parser().parse_args(argv)
    code = 0

    def command() -> None:
        nonlocal code
        name = getattr(args, "name", "all")
        if args.run is verify and name.lower() == "folder":
            code = verify_own(args)
        else:
            code = args.run(args, entries(name))

    return run_cli(command) or code


if __name__ == "__main__":
    sys.exit(main())
