"""What is in the store of image features: `python -m features status`, or `clear` to empty it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dassl.utils.cli import run_cli
from features.store import clear, default_folder, stored_files


def status(folder: Path) -> None:
    """Prints a line for each space: files, size, when it was last used."""
    files = stored_files(folder)
    total = sum(stat.st_size for _, stat in files)
    print(f"{folder}: {len(files):,} files, {total / 2**20:,.1f} MiB")
    for space in sorted({path.parent for path, _ in files}):
        own = [stat for path, stat in files if path.parent == space]
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(s.st_mtime for s in own)))
        size = sum(s.st_size for s in own) / 2**20
        print(f"  {space.name}: {len(own):,} files, {size:,.1f} MiB, last used {used}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("status", "clear"))
    parser.add_argument("--folder", default="", help="MODEL.FEATURES.FOLDER, if it was set")
    args = parser.parse_args(arguments)
    folder = Path(args.folder).expanduser() if args.folder else default_folder()
    if args.command == "status":
        status(folder)
        return
    count, size = clear(folder)
    print(f"{folder}: deleted {count:,} files, {size / 2**20:,.1f} MiB")


if __name__ == "__main__":
    sys.exit(run_cli(main))
