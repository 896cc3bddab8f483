"""Whether a command of a page would be understood: it goes through the program's own parser.

`train.py` also merges the configuration, a sweep makes its plan, scripts hand on their arguments;
nothing is run.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import datasets
import train
import trainers
from dassl.command import COMMANDS
from dassl.config import Config, get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from datasets.manage.catalog import entries
from sweep.plan.arguments import request_of
from sweep.plan.tables import TABLES
from tests.runs import ROOT

HARMLESS = ("cd", ".")
WRAPPERS = {  # scripts that install something first, and the program that they call
    "scripts/demo.sh": ("python", "scripts/demo.py"),
    "scripts/test.sh": (),
    "scripts/test_matrix.sh": (),
}
# Lines that are no commands but settings, to be typed behind one.
SETTINGS_OF = ("python", "train.py", "--trainer", "CoOp", "--config-file", "CoOp/tiny")
SETTINGS_OF += ("--dataset-config-file", "folder")


class NotUnderstoodError(AssertionError):
    """A command that would not do what its page says."""


class _Parsed(BaseException):  # no Exception: programs tell of these themselves
    def __init__(self, args: Namespace) -> None:
        self.found = args


@contextmanager
def _stopped_behind_the_parser() -> Iterator[None]:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *args: object) -> None:
        raise _Parsed(parse(self, *args))

    argparse.ArgumentParser.parse_args = parse_and_stop
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_args = parse


def start(words: Sequence[str]) -> int:
    """Runs `python FILE …` or `python -m PACKAGE …` in this process; returns the exit code."""
    before = sys.argv
    try:
        if words[1] == "-m":
            sys.argv = [words[2], *words[3:]]
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words[1:])
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def arguments_of(words: Sequence[str]) -> Namespace | None:
    """Returns what a Python program makes of its arguments; None if it looks at none.

    Raises:
        NotUnderstoodError: it refuses them.
    """
    try:
        with _stopped_behind_the_parser():
            code = start(words)
    except _Parsed as parsed:
        return parsed.found
    if code:
        raise NotUnderstoodError(f"exit code {code}: {' '.join(words)}")
    return None


def check(words: Sequence[str], marked: bool = False) -> None:
    """Raises NotUnderstoodError, or the program's own error, if a command is wrong.

    Args:
        words: the command.
        marked: whether its block is marked as needing something; programs of others are let pass.
    """
    words = [os.path.expanduser(word) for word in words]
    program = words[0]
    if re.fullmatch(r"[A-Z_]+(\.[A-Z_]+)+", program):
        return check([*SETTINGS_OF, *words])
    if program == "promptlearn":
        return check(["python", *_target(words[1]), *words[2:]])
    if program == "sbatch":
        words = [word for word in words[1:] if not word.startswith("-")]
        program = words[0]
    if program == "bash":
        words, program = words[1:], words[1]
    if program.endswith(".sh"):
        return _check_script(program, words[1:])
    if program.startswith("python") and words[1:3] not in (["-m", "venv"], ["-m", "pip"]):
        return _check_python(words)
    if not marked and program not in HARMLESS:
        raise NotUnderstoodError(
            f"nothing can check {' '.join(words)!r}: write <!-- needs: REASON --> before its block"
        )
    return None


def _target(command: str) -> list[str]:
    target, _ = COMMANDS[command]
    return [target] if target.endswith(".py") else ["-m", target]


def _check_script(script: str, given: Sequence[str]) -> None:
    if not (ROOT / script).is_file():
        raise NotUnderstoodError(f"{script} does not exist")
    if script in WRAPPERS:
        if WRAPPERS[script]:
            check([*WRAPPERS[script], *given])
        return
    called = subprocess.run(  # it says what it would call, without blanks within words
        ["bash", str(ROOT / script), *(word.replace(" ", "_") for word in given)],
        env={**os.environ, "PYTHON": "echo"},
        capture_output=True,
        text=True,
    )
    if called.returncode:
        raise NotUnderstoodError(called.stderr)
    check(["python", *called.stdout.split()])


def _check_python(words: Sequence[str]) -> None:
    if words[1] != "-m" and not (ROOT / words[1]).is_file():
        raise NotUnderstoodError(f"{words[1]} does not exist")
    args = arguments_of(words)
    of_program: dict[str, Callable[[Namespace], None]] = {
        "train.py": _check_training,
        "sweep": _check_sweep,
        "datasets": _check_dataset,
    }
    further = of_program.get(words[2] if words[1] == "-m" else words[1])
    if args is not None and further is not None:
        further(args)


def is_placeholder(word: str, known: Sequence[str] = ()) -> bool:
    """Whether a reader puts something else in its place: RUN, NAME, ITS_CLASS."""
    return word not in known and re.fullmatch(r"[A-Z][A-Z_]+", word) is not None


def all_settings() -> Config:
    """Returns the configuration with all keys that there are."""
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    trainers.extend_cfg(cfg)
    return cfg


def _check_training(args: Namespace) -> None:
    known = sorted(TRAINER_REGISTRY.registered_names())
    if args.backbone.startswith("open_clip:") and find_spec("open_clip") is None:
        args.backbone = "ViT-B/16"  # the package is optional
    if args.trainer and not is_placeholder(args.trainer, known):
        train.setup_cfg(args)
    else:
        all_settings().merge_from_list(args.opts)


def _check_sweep(args: Namespace) -> None:
    what = getattr(args, "what", "")
    if what and not is_placeholder(what, tuple(TABLES)):
        request_of(args, what).cells()
        all_settings().merge_from_list(args.opts)


def _check_dataset(args: Namespace) -> None:
    name = getattr(args, "name", "all")
    if not is_placeholder(name) and name.lower() not in ("folder", "all"):
        entries(name)


def desk(folder: Path) -> Path:
    """Makes the folders that the pages speak of: data, and pictures of one's own in ~."""
    for name in ("data", "home/my_birds", "home/pictures/birds", "home/pictures/cars"):
        (folder / name).mkdir(parents=True)
    return folder
