"""The store of image features, which are computed once: what is in it, and how to empty it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dassl.command import command
from dassl.utils.cli import run_cli
from dassl.utils.logger import talking
from dassl.utils.parsers import Parser
from dassl.utils.text import counted
from features.store import clear, default_folder, stored_files


def status(folder: Path) -> None:
    """Prints a line for each space: files, size, when it was last used."""
    files = stored_files(folder)
    total = sum(stat.st_size for _, stat in files)
    print(f"{folder}: {counted(len(files), 'file')}, {total / 2**20:,.1f} MiB")
    for space in sorted({path.parent for path, _ in files}):
        own = [stat for path, stat in files if path.parent == space]
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(s.st_mtime for s in own)))
        size = sum(s.st_size for s in own) / 2**20
        print(f"  {space.name}: {counted(len(own), 'file')}, {size:,.1f} MiB, last used {used}")


def empty(folder: Path) -> None:
    """Deletes the store, and says how large it was."""
    count, size = clear(folder)
    print(f"{folder}: deleted {counted(count, 'file')}, {size / 2**20:,.1f} MiB")


def build_parser() -> argparse.ArgumentParser:
    examples = {"status": "how large it is, and when it was used", "clear": "empties it"}
    parser = Parser(command("features"), __doc__, examples, talks=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, about in examples.items():
        sub = commands.add_parser(
            name,
            help=about,
            text=about,
            examples={"": "the one in the cache", "--folder /scratch/features": "another"},
        )
        sub.add_argument("--folder", default="", help="MODEL.FEATURES.FOLDER, if it was set")
        sub.set_defaults(run=status if name == "status" else empty)
    return parser


def main(arguments: list[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    with talking(args.quiet, args.verbose):
        args.run(Path(args.folder).expanduser() if args.folder else default_folder())


if __name__ == "__main__":
    sys.exit(run_cli(main))
