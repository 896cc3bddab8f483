"""Which classes, and which weights: the arguments that all commands on a run have."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dassl.utils import DataError, MissingFileError
from dassl.utils.errors import OutputFolderError
from prompts.predictor import Predictor


def add_choice_of_classes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_mutually_exclusive_group().add_argument
    names = "other classes than the run's, with commas between their names"
    add("--classes", help=f"{names}; or @FILE, as --classes-file")
    add("--classes-file", default="", help="a text file of them, one a line; commas are no marks")
    add = parser.add_argument
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
    given = args.classes or ""
    file = args.classes_file or (given[1:] if given.startswith("@") else "")
    if not file:
        return None if args.classes is None else args.classes.split(",")
    path = Path(file).expanduser()
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


def output_file(name: str, overwrite: bool) -> Path:
    """Returns the file that is to be written, before anything is computed for it.

    Raises:
        OutputFolderError: it is there, or cannot be written.
    """
    path = Path(name).expanduser()
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no plain file"
        raise OutputFolderError(f"{path} is {kind}: give the name of a file to write")
    if path.exists() and not overwrite:
        raise OutputFolderError(f"{path} is there: choose another name, or --overwrite")
    parent = next(place for place in path.absolute().parents if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputFolderError(f"{path} cannot be written: {parent} is no folder that takes files")
    return path
