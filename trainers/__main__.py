"""Looks into somebody else's trainer, and tries it."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import io
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from yacs.config import CfgNode

import train
import trainers
from dassl.command import command
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import MissingFileError, UserError, without_gpu
from dassl.utils.cli import run_cli
from dassl.utils.files import listed, user_cache_home
from dassl.utils.logger import quiet, talking
from dassl.utils.parsers import Parser
from dassl.utils.plugins import lines_for_a_gpu, settings_file
from encoders.openai import WIDE

ROOT = Path(__file__).resolve().parents[1]
TINY = Namespace(
    dataset_config_file=str(ROOT / "configs/datasets/digits.yaml"),
    config_file=str(ROOT / "configs/trainers/tiny.yaml"),
    seed=1,
)
TWO_STEPS = ("DATASET.NUM_SHOTS", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "2", "OPTIM.MAX_EPOCH", "1")


def build_parser() -> argparse.ArgumentParser:
    codes = {0: "it runs", 1: "it does not"}
    examples = {
        "check trainers/coop.py": "one that runs",
        "check theirs.py": "one of somebody else's",
    }
    parser = Parser(command("trainers"), __doc__, examples, codes, talks=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    text = "what a trainer's file needs, and whether it runs"
    examples = {
        "trainers/coop.py": "",
        "~/their-repository/trainers/theirs.py": "where it lies in its repository",
        "trainers/coop.py TRAINER.COOP.N_CTX 4": "with settings",
    }
    check = commands.add_parser("check", help=text, text=text, examples=examples, exit_codes=codes)
    check.add_argument("file", type=Path, help="in trainers/, or where it lies in its repository")
    check.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for the dry run")
    check.set_defaults(run=lambda args: show_check(args.file.expanduser().resolve(), args.opts))
    return parser


def show_check(path: Path, opts: list[str]) -> int:
    """Prints a page about a trainer's file; returns the exit code.

    Raises:
        MissingFileError: there is no such file.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is no file; expected that of a trainer, such as my_coop.py")
    print(_shown(path))
    fine = True
    for topic, text in _findings(path, opts):
        fine = fine and not text.startswith("!")
        print(f"  {topic:<11}{text}")
    print("It runs." if fine else "It does not run as it is: see the lines with '!'.")
    return 0 if fine else 1


def _findings(path: Path, opts: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (topic, text); texts that begin with "!" are in the way of a run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module, error = _imported(path)
    yield from (("imports", f"! {text}") for text in _not_installed(tree, path))
    if module is None:
        yield "imports", f"! {error}"
        return
    yield "imports", "all found"
    names = [n for n in TRAINER_REGISTRY.registered_names() if _is_defined_in(module, n)]
    if not names:
        yield "trainers", "none registered here: what this file has is for others"
    if lines := lines_for_a_gpu(path):
        instead = "" if torch.cuda.is_available() else "; this machine has none: it is the CPU"
        yield "GPU", f"asked for in line {listed(lines, 9)}{instead}"
    for name in names:
        yield "trainers", name
        yield from _about(name, path, tree, opts)


def _imported(path: Path) -> tuple[ModuleType | None, str]:
    if path.parent == Path(trainers.__file__).parent:
        if path.name in trainers.failed_imports:
            return None, _in_a_line(trainers.failed_imports[path.name])
        return trainers.modules.get(path.stem), "this is no file of a trainer"
    try:
        return trainers.import_file(path), ""
    except Exception as error:  # whatever a foreign file does wrong
        return None, _in_a_line(error)


def _is_defined_in(module: ModuleType, name: str) -> bool:
    return getattr(vars(module).get(name), "__module__", "") == module.__name__


def _not_installed(tree: ast.Module, path: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for top in {name.split(".")[0] for name in names}:
            if importlib.util.find_spec(top) is None and not (path.parent / top).exists():
                what = "pip install it, or put its file or folder beside the trainer's"
                if "dassl" in top.lower():
                    what = "it is another copy of the engine, which is called dassl here"
                yield f"line {node.lineno}: {top} is not here: {what}"


def _about(name: str, path: Path, tree: ast.Module, opts: list[str]) -> Iterator[tuple[str, str]]:
    try:
        TRAINER_REGISTRY.get(name)
        with quiet():
            cfg = train.setup_cfg(Namespace(**vars(TINY), trainer=name, opts=opts))
    except UserError as error:
        yield "settings", f"! {error}"
        return
    if cfg.MODEL.BACKBONE.NAME == WIDE:
        yield "widths", f"those of ViT-B/16 are fixed: in place of the CLIP tiny comes {WIDE}"
    if trainers.has_own_settings(name):
        yield "settings", f"declared by {_shown((settings_file(path) or path).resolve())}"
    missing = {key: line for key, line in _keys(tree) if not _has(cfg, key)}
    for key, line in missing.items():
        if key.rpartition(".")[0] not in missing:
            where = f"a file {path.stem}_cfg.py, or its repository's train.py, beside it"
            yield "settings", f"line {line} reads {key}, which nobody declares: put {where}"
    yield "dry run", _dry_run(name, cfg, opts)


def _keys(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yields the settings that a file reads as `cfg.A.B` or `self.cfg.A.B`, and the lines."""
    for node in ast.walk(tree):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute) and inner.attr != "cfg":
            parts.insert(0, inner.attr)
            inner = inner.value
        base = getattr(inner, "attr", getattr(inner, "id", ""))
        is_read = isinstance(getattr(node, "ctx", None), ast.Load)
        if base == "cfg" and is_read and parts and not any(_is_method(part) for part in parts):
            yield ".".join(parts), node.lineno


def _is_method(name: str) -> bool:
    return any(hasattr(kind, name) for kind in (CfgNode, str, list, float))


def _has(cfg: CfgNode, key: str) -> bool:
    node: object = cfg
    for name in key.split("."):
        if not isinstance(node, CfgNode) or name not in node:
            return False
        node = node[name]
    return True


def _dry_run(name: str, cfg: CfgNode, opts: list[str]) -> str:
    """Tries a trainer, and in float32 too if it does not run as it is set."""
    tried, error = _tried(name, opts)
    half = [key for key in cfg.TRAINER if "PREC" in getattr(cfg.TRAINER[key], "keys", dict)()]
    if error and half and not torch.cuda.is_available():
        full = [text for key in half for text in (f"TRAINER.{key}.PREC", "fp32")]
        tried, still = _tried(name, [*full, *opts])
        tried += f", with PREC fp32 (as set: {error})"
        error = still and error
    return f"! {error}" if error else f"two steps on Digits with the CLIP tiny: {tried}"


def _tried(name: str, opts: list[str]) -> tuple[str, str]:
    """Takes two steps on the base classes of Digits, on the embedded CLIP, and tests on the new.

    Returns:
        What came out, and the error.
    """
    common = {**vars(TINY), "trainer": name, "opts": [*TWO_STEPS, *opts]}
    said = io.StringIO()
    data = user_cache_home() / "data"
    data.mkdir(parents=True, exist_ok=True)
    common |= {"root": str(data)}
    with tempfile.TemporaryDirectory() as folder:
        base = Namespace(**common, output_dir=f"{folder}/a", subsample_classes="base")
        new = Namespace(**common, output_dir=f"{folder}/b", subsample_classes="new")
        new.eval_only, new.model_dir, new.load_epoch = True, base.output_dir, 1
        try:
            with quiet(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                accuracies = train.main(base), train.main(new)
        except Exception as error:  # whatever a foreign file does wrong
            return "", _in_a_line(error)
    shown = " and ".join("none" if a is None else f"{a:.1f}%" for a in accuracies)
    return f"{shown} on base and new classes", ""


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    inside = ("site-packages", without_gpu.__file__)  # of torch, or around its calls
    frame = [f for f in frames if not any(part in f.filename for part in inside)][-1]
    where = f"{_shown(Path(frame.filename))}, line {frame.lineno}"
    return f"{type(error).__name__}: {error} ({where})"


def main() -> int:
    """Runs the command line; returns the exit code."""
    args = build_parser().parse_args()
    with talking(args.quiet, args.verbose):
        return args.run(args)


if __name__ == "__main__":
    sys.exit(run_cli(main))
