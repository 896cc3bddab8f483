"""Which classes, and which weights: the arguments that all commands on a run have."""

from __future__ import annotations

import argparse
from pathlib import Path

from dassl.utils import DataError, MissingFileError
from prompts.predictor import Predictor


def add_choice_of_classes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--classes", help="other classes than the run's, with commas between their names")
    add("--classes-file", default="", help="a text file of them, one a line; commas are no marks")
    add("--template", default="", help="another hand-written prompt, such as 'a photo of a {}.'")
    add_choice_of_weights(parser)


def add_choice_of_weights(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--epoch", type=int, help="epoch of the weights; absent: those that the run tested")
    add("--backbone-path", default="", help="CLIP's weights, if that file has moved")
    add("--device", choices=("cpu", "cuda"), default="", help="absent: a GPU if there is one")


def chosen_classes(args: argparse.Namespace) -> list[str] | None:
    """Returns the names that --classes or --classes-file gives; None: neither is there.

    Raises:
        MissingFileError, DataError: the file is not there, or is not in UTF-8.
    """
    if not args.classes_file:
        return None if args.classes is None else args.classes.split(",")
    path = Path(args.classes_file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise MissingFileError(f"there is no file {path} of class names") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not in UTF-8: save it so, with one class name a line") from None
    return [line for line in text.splitlines() if line.strip()]


def predictor_of(args: argparse.Namespace) -> Predictor:
    """Returns what a run has learned, with the classes and weights that were chosen."""
    return Predictor.load(
        args.run,
        chosen_classes(args),
        epoch=args.epoch,
        template=args.template,
        backbone_path=args.backbone_path,
        device=args.device,
    )
