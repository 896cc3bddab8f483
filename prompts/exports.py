"""The commands `export` and `import`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable

from dassl.command import command
from dassl.utils.files import PathLike, write_text
from prompts.arguments import add_choice_of_classes, output_file, predictor_of
from prompts.card import card
from prompts.classifier import export_classifier
from prompts.onnx_file import export_onnx
from prompts.predictor import Predictor
from prompts.prompts_file import export_prompts, import_prompts

KINDS: dict[str, Callable[[Predictor, PathLike], None]] = {
    "prompts": export_prompts,
    "classifier": export_classifier,
    "onnx": export_onnx,
}


def add_export(commands: argparse._SubParsersAction) -> None:
    text = "what a run has learned, in one file for other programs, and a model card beside it"
    examples = {
        "output/coop coop.safetensors --as prompts": "what was learned alone, for `import`",
        "output/coop weights.safetensors --as classifier --classes cat,dog": "for CLIP elsewhere",
        "output/cocoop cocoop.onnx --as onnx": "images to logits",
    }
    parser = commands.add_parser("export", help=text, text=text, examples=examples)
    add = parser.add_argument
    add("run", help="output folder of a training")
    add("file", help="to write; the card is called the same with .md behind it")
    add(
        "--as",
        dest="kind",
        choices=KINDS,
        required=True,
        help="prompts: what was learned, for `import`; classifier: a matrix of class weights for "
        "CLIP's own image encoder; onnx: images to logits",
    )
    add("--overwrite", action="store_true", help="replace the file if it is there")
    add_choice_of_classes(parser)
    parser.set_defaults(command=export, device="cpu")


def export(args: argparse.Namespace) -> None:
    path = output_file(args.file, args.overwrite)
    card_path = output_file(f"{path}.md", args.overwrite)
    args.device = "cpu"  # in float32, whatever a GPU would compute in
    predictor = predictor_of(args)
    KINDS[args.kind](predictor, path)
    write_text(card_path, card(predictor, args.kind, path))
    print(f"{path}: {path.stat().st_size:,} bytes; {card_path.name} says what it is")


def add_import(commands: argparse._SubParsersAction) -> None:
    text = "makes a run's folder, for predict.py, of a file that `export --as prompts` wrote"
    examples = {
        "coop.safetensors output/theirs": "",
        "coop.safetensors output/theirs --backbone-path clip.pt": "CLIP's weights are a file",
    }
    parser = commands.add_parser("import", help=text, text=text, examples=examples)
    add = parser.add_argument
    add("file", help="what was exported")
    add("folder", help="to create")
    add("--backbone-path", default="", help="CLIP's weights, if they are a file")
    parser.set_defaults(command=take_in)


def take_in(args: argparse.Namespace) -> None:
    folder = import_prompts(args.file, args.folder, args.backbone_path)
    print(f"{folder}: try {command('predict')} {shlex.quote(str(folder))} PICTURE")
