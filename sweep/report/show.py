"""The commands that show results: table, report, parse."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dassl.command import command
from dassl.evaluation.error_analysis import FILES
from dassl.utils import ConfigError, MissingFileError
from dassl.utils.errors import not_one_of
from dassl.utils.files import require_replaceable, write_text
from dassl.utils.logger import get_logger
from dassl.utils.terminal import wants_colors
from dassl.utils.text import counted, visible
from sweep.plan.arguments import add_request, request_of
from sweep.plan.own import own_name
from sweep.plan.request import Request, kept_requests
from sweep.plan.tables import TABLES
from sweep.report.formats import FORMATS, terminal
from sweep.report.grid import Grid, build
from sweep.report.html import page
from sweep.report.parse import folders_of_seeds, mean_of, parse_folder, summary
from sweep.report.records import MixedRecordsError
from sweep.work.own_data import SPLITS, embedded_note

logger = get_logger(__name__)

PICTURE = FILES[-1]  # of the error analysis


# --- table ----------------------------------------------------------------------------------------


def add_table(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "table",
        help="print a table from the records",
        text="Prints a table from the records of the runs that are finished.",
        examples={
            "cocoop-1": "ours, the spread over seeds, the paper's",
            "base2new --trainers CoOp --datasets digits": "the arguments of `run`",
            "fewshot --datasets dtd --format csv --to dtd.csv": "for a spreadsheet",
        },
    )
    add_request(parser)
    formats = (*FORMATS, "html")
    parser.add_argument("--format", default="terminal", help=", ".join(formats))
    parser.add_argument("--to", type=Path, help="file to write instead of printing")
    parser.add_argument("--color", action="store_true", help="colours even if not on a terminal")
    parser.set_defaults(command=show_table)


def show_table(args: argparse.Namespace) -> int:
    """Prints a table, or writes it to a file."""
    if args.format not in (*FORMATS, "html"):
        raise ConfigError(not_one_of("--format", args.format, (*FORMATS, "html")))
    grid = build(request_of(args, args.what).table(), args.output)
    if args.format == "html":
        text = page([grid], grid.title)
    elif args.format == "terminal":
        at_terminal = args.to is None and wants_colors(sys.stdout)
        text = terminal(grid, color=args.color or at_terminal)
    else:
        text = FORMATS[args.format](grid)
    if args.to is None:
        print(text)
    else:
        require_replaceable(args.to, (".md", ".tex", ".csv", ".html", ".htm", ".txt"))
        write_text(args.to, text + "\n")
        print(visible(f"Written to {args.to}"))
    return 0


# --- report ---------------------------------------------------------------------------------------


def add_report(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "report",
        help="one HTML page with all tables and charts",
        text="Writes one HTML page with all tables and charts.",
        examples={
            "": "on output/sweep",
            "--output output/demo --to demo.html": "",
            "--all": "with the papers' other tables",
        },
    )
    parser.add_argument("--output", type=Path, default=Path("output/sweep"))
    parser.add_argument("--to", type=Path, help="file; default: report.html in the output folder")
    parser.add_argument("--all", action="store_true", help="also the papers' tables not asked for")
    parser.set_defaults(command=report)


def report(args: argparse.Namespace) -> int:
    """Writes the page for every sweep that was started in an output folder."""
    requests = kept_requests(args.output)
    if args.all:
        asked = {request.what for request in requests}
        requests += [Request(name) for name in TABLES if name not in asked]
    if not requests:
        raise ConfigError(f"no sweep was started in {args.output}; start one or add --all")
    target = args.to or args.output / "report.html"
    require_replaceable(target, (".html", ".htm"))
    grids = grids_of(requests, args.output, target)
    if not grids:
        raise ConfigError(f"the tables of {args.output} would average what differs; see above")
    write_text(target, page(grids))
    print(visible(f"Written to {target}"))
    return 0


def grids_of(requests: Sequence[Request], output: Path, target: Path) -> list[Grid]:
    """Returns the tables of sweeps; one that would average what differs is left out, and told.

    Args:
        requests: what was asked for.
        output: the sweeps' output folder.
        target: the page to be; links to pictures start from its folder.
    """
    grids = []
    for request in requests:
        try:
            grid = build(request.table(), output)
            grids.append(_with_context(grid, request, output, target))
        except MixedRecordsError as error:
            logger.warning(f"Note: {request.flags()} is left out: {error}")
    return grids


def _with_context(grid: Grid, request: Request, output: Path, target: Path) -> Grid:
    """Adds the command that made a grid, and links from the page to its runs' pictures."""
    pictures = [(run.title, run.folder(output) / PICTURE) for run in request.runs()]
    links = tuple(
        (title, Path(os.path.relpath(path, target.parent)).as_posix())
        for title, path in pictures
        if path.is_file()
    )
    splits = [output / SPLITS / f"{own_name(run.dataset)}.csv" for run in request.runs()]
    links += tuple(
        (f"The split of {path.stem}", Path(os.path.relpath(path, target.parent)).as_posix())
        for path in dict.fromkeys(splits)
        if path.is_file()
    )
    said = (*embedded_note(request.runs()), f"Made with: {command('sweep')} run {request.flags()}")
    return replace(grid, notes=(*grid.notes, *said), links=links)


# --- parse ----------------------------------------------------------------------------------------


def add_parse(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "parse",
        help="mean over a folder of seeds; also upstream's logs",
        text="Prints the mean over a folder of seeds, from records or from upstream's logs.",
        examples={"output/mine": "it holds seed1, seed2, ...", "output --multi-exp": "all below"},
    )
    add = parser.add_argument
    add("folder", type=Path, help="holds seed1, seed2, ...")
    add(
        *("--multi-exp", "--multi"),
        action="store_true",
        help="all folders of seeds below it, and their average",
    )
    add("--test-log", action="store_true", help="as upstream's; a log tells by itself what it is")
    parser.set_defaults(command=parse)


def parse(args: argparse.Namespace) -> int:
    """Prints the accuracy of each seed, their mean and their spread."""
    if not args.multi_exp:
        print(visible(f"{args.folder}\n{summary(parse_folder(args.folder))}\n"))
        return 0
    folders = folders_of_seeds(args.folder)
    if not folders:
        raise ConfigError(f"there is no folder seed<k> below {args.folder}")
    means = []
    for folder in folders:
        try:
            found = parse_folder(folder)
            print(visible(f"{folder}\n{summary(found)}\n"))
            means.append(mean_of(found))
        except MissingFileError as error:
            print(visible(f"{folder}\nnothing finished: {error}\n"))
    if means:
        print(f"average of {counted(len(means), 'folder')}: {statistics.mean(means):.2f}%")
    return 0
