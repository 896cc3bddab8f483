"""Classifies pictures with what a run has learned.

python predict.py output/coop picture.png
python predict.py output/coop folder --top 3 --format csv --output guesses.csv
find . -name '*.jpg' | python predict.py output/coop - --classes cat,dog,bird
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dassl.utils.cli import run_cli
from dassl.utils.files import write_text
from prompts.arguments import add_choice_of_classes, predictor_of
from prompts.formats import FORMATS
from prompts.pictures import find_pictures, require_pictures


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", help="output folder of a training (--output-dir), or of a zero-shot evaluation")
    add("pictures", help="a picture, a folder, or - for paths on standard input, one a line")
    add("--top", type=int, default=5, help="classes to show for each picture")
    add("--format", choices=FORMATS, default="table")
    add("--output", default="", help="file to write; absent: standard output")
    add("--batch-size", type=int, default=0, help="pictures at a time; changes no number")
    add_choice_of_classes(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    paths = find_pictures(args.pictures)
    require_pictures(paths)
    predictor = predictor_of(args)
    probabilities = predictor.probabilities(paths, max(args.batch_size, 0), progress=True)
    text = FORMATS[args.format](paths, predictor.guesses(probabilities, args.top))
    if args.output:
        write_text(Path(args.output).expanduser(), text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    raise SystemExit(run_cli(lambda: main(build_parser().parse_args())))
