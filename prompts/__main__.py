"""What a run has learned, in words and in files."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from dassl.command import command
from dassl.utils import ConfigError
from dassl.utils.cli import run_cli
from dassl.utils.logger import talking
from dassl.utils.parsers import Parser
from dassl.utils.text import csv_cell, visible
from prompts.arguments import add_choice_of_weights
from prompts.exports import add_export, add_import
from prompts.pictures import find_pictures
from prompts.predictor import Predictor
from prompts.words import METRICS, Words, interpret

EXAMPLES = {
    "interpret output/coop": "the words nearest to each learned vector",
    "export output/coop coop.safetensors --as prompts": "a file of kilobytes",
    "import coop.safetensors output/theirs": "a folder for predict.py",
}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(command("prompts"), __doc__, EXAMPLES, talks=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_interpret(commands)
    add_export(commands)
    add_import(commands)
    return parser


def _add_interpret(commands: argparse._SubParsersAction) -> None:
    text = "the words of CLIP's vocabulary that are nearest to learned context vectors"
    examples = {
        "output/coop": "",
        "output/coop output/cocoop": "side by side, as in the paper",
        "output/cocoop --pictures folder": "of what pictures make of them",
    }
    parser = commands.add_parser("interpret", help=text, text=text, examples=examples)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="output folders; several: the paper's layout")
    add("--pictures", default="", help="picture, folder or -: CoCoOp's context as they shift it")
    add("--nearest", type=int, default=3, metavar="K", help="words for each vector")
    add("--metric", choices=METRICS, default="euclidean", help="euclidean is the paper's")
    add("--format", choices=("table", "csv", "jsonl"), default="table")
    add_choice_of_weights(parser)
    parser.set_defaults(command=show_words)


def show_words(args: argparse.Namespace) -> None:
    pictures = find_pictures(args.pictures) if args.pictures else []
    places = {"epoch": args.epoch, "backbone_path": args.backbone_path, "device": args.device}
    found = {}
    for folder in args.runs:
        predictor = Predictor.load(folder, **places)
        predictor.require(pictures)
        found[folder] = interpret(predictor, pictures, args.nearest, args.metric)
    if args.format != "table":
        sys.stdout.write(_as_lines(found, args.format, args.metric))
    elif len(found) > 1:
        sys.stdout.write(_side_by_side(found, args.metric))
    else:
        (words,) = found.values()
        sys.stdout.write("\n".join(map(_table, words)))


def _table(words: Words) -> str:
    """A line for each vector; its nearest words from left to right."""
    shown = [
        [i, *(f"{visible(word)} {value:.4f}" for word, value in row)]
        for i, row in enumerate(words.nearest, 1)
    ]
    head = f"{visible(words.of)}\n" if words.of else ""
    header = ["#", "nearest", *map(str, range(2, len(shown[0])))]
    return f"{head}{tabulate(shown, header, disable_numparse=True)}\n"


def _side_by_side(found: dict[str, list[Words]], metric: str) -> str:
    """As the paper's table of nearest words: a line for each vector, two columns for each run."""
    if any(len(words) > 1 or words[0].of for words in found.values()):
        raise ConfigError(
            "several runs stand side by side where each has one context: show runs with a context "
            "for each class or picture one by one"
        )
    header, columns = ["#"], []
    for folder, [words] in found.items():
        header += [Path(folder).name, metric]
        columns.append([(visible(row[0][0]), f"{row[0][1]:.4f}") for row in words.nearest])
    rows = []
    for i in range(max(map(len, columns))):
        cells = [column[i] if i < len(column) else ("", "") for column in columns]
        rows.append([i + 1, *(cell for pair in cells for cell in pair)])
    return tabulate(rows, header, disable_numparse=True) + "\n"


def _as_lines(found: dict[str, list[Words]], form: str, metric: str) -> str:
    header = ("run", "of", "vector", "rank", "word", metric)
    rows: Sequence[tuple] = [
        (folder, words.of, number, rank, word, value)
        for folder, several in found.items()
        for words in several
        for number, row in enumerate(words.nearest, 1)
        for rank, (word, value) in enumerate(row, 1)
    ]
    if form == "jsonl":
        return "".join(json.dumps(dict(zip(header, row))) + "\n" for row in rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *(map(csv_cell, r) for r in rows)])
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    with talking(args.quiet, args.verbose):
        args.command(args)


if __name__ == "__main__":
    sys.exit(run_cli(main))
