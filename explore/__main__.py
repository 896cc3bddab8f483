"""Writes one HTML page on runs, which needs no server and no network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import dassl.start  # noqa: F401  # isort: skip - first: it checks Python and its packages

from dassl.command import command
from dassl.utils import ConfigError
from dassl.utils.cli import run_cli
from dassl.utils.files import require_replaceable, write_text
from dassl.utils.logger import talking
from dassl.utils.parsers import Parser
from dassl.utils.text import counted, visible
from explore import accuracy, single
from explore.runs import find_runs, settings_of
from pages import Page, Section, render
from sweep.plan.request import kept_requests
from sweep.report.charts import slots_of
from sweep.report.html import sections
from sweep.report.show import grids_of

MOST = 12  # runs
NAMED = 3  # datasets in the page's title


EXAMPLES = {
    "output/coop output/zeroshot": "several runs side by side",
    "output/sweep": "all runs below, and the sweep's tables",
    "output/coop --to coop.html --mistakes 24": "with more pictures",
}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(command("explore"), __doc__, EXAMPLES)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="folders of runs, or with runs below")
    add("--to", type=Path, help="file; default: explore.html in the first folder")
    add("--root", default="", help="folder that holds the datasets, if it has moved")
    add("--mistakes", type=int, default=12, metavar="N", help="pictures of each run")
    add("--most", type=int, default=MOST, metavar="N", help="runs that are shown one by one")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    with talking(args.quiet, args.verbose):
        write_page(args)


def write_page(args: argparse.Namespace) -> None:
    """Does what the command line says."""
    for flag, number in (("--mistakes", args.mistakes), ("--most", args.most)):
        if number < 1:
            raise ConfigError(f"{flag} is {number}; expected 1 or more")
    target = args.to or Path(args.runs[0]).expanduser() / "explore.html"
    require_replaceable(target, (".html", ".htm"))
    write_text(target, render(page(args.runs, target, args.root, args.mistakes, args.most)))
    print(visible(f"Written to {target}"))


def page(
    folders: Sequence[str], target: Path, root: str = "", pictures: int = 12, most: int = MOST
) -> Page:
    """Returns the page on the runs in and below folders.

    Args:
        folders: of runs, or with runs below.
        target: the file to be; links to pictures start from its folder.
        root: where the datasets are, if they have moved.
        pictures: mistakes of each run.
        most: runs that are shown one by one; the first seed of each setting.

    Raises:
        UserError: see `find_runs`.
    """
    runs = find_runs(folders, root)
    settings = settings_of(runs)
    slots = slots_of(list(dict.fromkeys(one.name for one in settings)))
    first = [one.runs[0] for one in settings]
    shown = first[:most]
    names = list(dict.fromkeys(one.dataset for one in runs))
    few = len(names) <= NAMED
    datasets = ", ".join(names) if few else f"{len(names)} datasets"
    about = f"{counted(len(runs), 'run')}{'' if few else ' on ' + ', '.join(names)}. "
    about += "A heading sorts its table."
    if len(shown) < len(runs):
        about += (
            f" Curves and what follows them show {counted(len(shown), 'run')}, the first seed of "
            "each setting; give a run's folder to see another."
        )
    tables = _tables(folders, target)
    parts = [
        *tables,
        *([] if tables else [accuracy.base_and_new(settings)]),
        accuracy.by_class(settings),
        single.training(shown, slots),
        single.calibration(shown, slots),
        single.confused(shown),
        single.mistakes(shown, pictures),
        *single.prompts(shown),
        accuracy.overview(runs),
    ]
    return Page(f"Prompt learning for CLIP: {datasets}", about, parts)


def _tables(folders: Sequence[str], target: Path) -> list[Section]:
    """Returns the tables of the sweeps that were started in the folders."""
    return [
        section
        for folder in map(Path, folders)
        if (requests := kept_requests(folder.expanduser()))
        for section in sections(grids_of(requests, folder.expanduser(), target))
    ]


if __name__ == "__main__":
    sys.exit(run_cli(main))
