"""Classifies pictures with what a run has learned.

A picture whose name begins with - is written ./-name.jpg.
"""

from __future__ import annotations

import argparse
import sys

import dassl.start  # noqa: F401  # isort: skip - first: it checks Python and its packages

from dassl.command import command
from dassl.utils import ConfigError, DataError
from dassl.utils.cli import run_cli
from dassl.utils.files import write_text
from dassl.utils.logger import talking
from dassl.utils.parsers import Parser
from dassl.utils.text import counted, spelled
from prompts.arguments import add_choice_of_classes, output_file, predictor_of
from prompts.formats import FORMATS
from prompts.pictures import find_pictures

SKIP = "; --skip-broken leaves out what cannot be read"

EXAMPLES = {
    "output/coop picture.png": "the five likeliest classes",
    "output/coop folder --top 3 --format csv --output guesses.csv": "all pictures in it",
    "output/coop folder --classes river,forest,sea": "other classes",
    "find . -name '*.jpg' -print0 | {} output/coop -": "what another program finds",
}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(command("predict"), __doc__, EXAMPLES)
    add = parser.add_argument
    add("run", help="output folder of a training (--output-dir), or of a zero-shot evaluation")
    add(
        "pictures",
        help="a picture, a folder, or - for paths on standard input, one a line, or with NUL "
        "between them",
    )
    add("--top", type=int, default=5, help="classes to show for each picture")
    add("--format", choices=FORMATS, default="table")
    add("--output", default="", help="file to write; absent: standard output")
    add("--overwrite", action="store_true", help="replace the file if it is there")
    add("--skip-broken", action="store_true", help="leave out pictures that cannot be read")
    add("--batch-size", type=int, default=0, help="pictures at a time; changes no number")
    add_choice_of_classes(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    with talking(args.quiet, args.verbose):
        _predict(args)


def _predict(args: argparse.Namespace) -> None:
    if args.batch_size < 0:
        raise ConfigError(f"--batch-size is {args.batch_size}; expected 1 or more")
    output = output_file(args.output, args.overwrite) if args.output else None
    paths = find_pictures(args.pictures)
    predictor = predictor_of(args)
    broken: dict[int, str] | None = {} if args.skip_broken else None
    try:
        if broken is None:
            predictor.require(paths)
        guesses = predictor(paths, args.top, args.batch_size, progress=True, broken=broken)
    except DataError as error:
        raise DataError(f"{error}{SKIP if len(paths) > 1 else ''}") from None
    if broken:
        for reason in broken.values():
            print(f"left out: {spelled(reason)}", file=sys.stderr)
        if not guesses:
            raise DataError(f"none of {counted(len(paths), 'picture')} can be read")
        paths = [path for i, path in enumerate(paths) if i not in broken]
    text = FORMATS[args.format](paths, guesses)
    if output:
        write_text(output, text.encode(errors="backslashreplace").decode())
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    raise SystemExit(run_cli(lambda: main(build_parser().parse_args())))
