"""Every command and subcommand: help with examples that parse, one way to talk, exit codes."""

from __future__ import annotations

import argparse
import ast
import importlib
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dassl.command import COMMANDS, STARTED_BY, command
from dassl.utils.cli import run_cli
from dassl.utils.errors import ConfigError
from tests.runs import ROOT, ours

# What follows `promptlearn` → what a program in Python imports.
MODULES = {
    word: target.removesuffix(".py").replace("/", ".")
    if target.endswith(".py")
    else f"{target}.__main__"
    for word, (target, _) in COMMANDS.items()
}
# Files that speak to whoever reads them later, elsewhere, or of a program that is none.
SPOKEN_ELSEWHERE = {"dassl/command.py", "prompts/usage.py"}


def parser_of(word: str) -> argparse.ArgumentParser:
    module = importlib.import_module(MODULES[word])
    build = getattr(module, "build_parser", None)
    return build() if build else importlib.import_module("sweep.cli").build_parser()


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from parsers(sub)


def examples(parser: argparse.ArgumentParser) -> list[str]:
    """Returns the commands that help shows, without what they do."""
    shown = parser.format_help().split("examples:\n")[1].split("\n\nexit code: ")[0]
    lines = shown.replace(" \\\n        ", " ").splitlines()
    return [line.strip().split("   ")[0] for line in lines if parser.prog in line]


@pytest.mark.parametrize("started_by", ["", "promptlearn"])
@pytest.mark.parametrize("word", COMMANDS)
def test_help_has_examples_that_parse(word: str, started_by: str, monkeypatch):
    if started_by:
        monkeypatch.setenv(STARTED_BY, started_by)
    else:
        monkeypatch.delenv(STARTED_BY, raising=False)
    root = parser_of(word)
    start = command(Path(COMMANDS[word][0]).stem)
    assert root.prog == start == (f"promptlearn {word}" if started_by else start)
    for parser in parsers(root):
        found = examples(parser)
        assert 2 <= len(found) <= 4 or parser is not root, parser.prog
        assert found and parser.description, parser.prog
        assert all(len(line) <= 100 for line in parser.format_help().splitlines()), parser.prog
        assert not started_by or "python" not in parser.format_help()
        for line in found:
            root.parse_args(shlex.split(line[line.index(start) + len(start) :]))


@pytest.mark.parametrize("word", COMMANDS)
def test_all_talk_as_much_as_is_wanted(word: str):
    parsed = list(parsers(parser_of(word)))
    for parser in parsed[1:] or parsed:
        flags = {flag for action in parser._actions for flag in action.option_strings}
        assert {"--quiet", "-q", "--verbose", "-v"} <= flags, parser.prog
        line = next(line for line in examples(parser)).partition(parser.prog)[2]
        with pytest.raises(SystemExit):
            parser.parse_args(["-q", "-v", *shlex.split(line)])


# --- how they end ---------------------------------------------------------------------------------


class Closed:
    """What nobody reads any more."""

    encoding = "utf-8"

    def write(self, text: str = "") -> None:
        raise BrokenPipeError

    flush = write

    def isatty(self) -> bool:
        return False


def ended(word: str, monkeypatch, *words: str) -> object:
    """Runs a command as Python does, in this process; returns its exit code."""
    target = COMMANDS[word][0]
    monkeypatch.setattr(sys, "argv", [target, *words])
    file = target if target.endswith(".py") else f"{target}/__main__.py"
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize("word", COMMANDS)
def test_exit_codes(word: str, monkeypatch, capsys):
    assert ended(word, monkeypatch, "--help") == 0
    assert ended(word, monkeypatch, "--no-such-flag") == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: ") and "\nerror: " in shown.err
    assert f"{command(Path(COMMANDS[word][0]).stem)} --help shows examples" in shown.err
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        assert ended(word, patch, "--help") == 141
    for error, code in ((KeyboardInterrupt(), 130), (ConfigError("a mistake"), 2)):
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", raising(error))
            assert ended(word, patch) == code
    assert capsys.readouterr().err.splitlines() == ["interrupted", "error: a mistake"]


def test_the_nearest_subcommand(capsys):
    with pytest.raises(SystemExit):
        parser_of("sweep").parse_args(["statu"])
    assert "Did you mean 'status'?" in capsys.readouterr().err


def raising(error: BaseException) -> object:
    def parse_args(*args: object) -> None:
        raise error

    return parse_args


def test_no_standard_output(monkeypatch):
    """As with `>&-`: what is said is lost, and nothing else."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run_cli(lambda: print("lost")) == 0


def test_a_full_disk_behind_standard_output(monkeypatch, capsys):
    class Full(Closed):
        def write(self, text: str = "") -> None:
            raise OSError(28, "No space left on device")

        flush = write

    monkeypatch.setattr(sys, "stdout", Full())
    assert run_cli(lambda: print("much")) == 2
    assert "error: standard output takes nothing more: No space" in capsys.readouterr().err


# --- what they tell to type -----------------------------------------------------------------------


def test_no_message_knows_only_one_way_to_start_a_command():
    """Such as "python -m sweep report": `command("sweep")` knows how this program was started."""
    starts = [f"python {target}" for target, _ in COMMANDS.values() if target.endswith(".py")]
    starts += ["python -m " + target for target, _ in COMMANDS.values()]
    folders = {Path(target).parts[0] for target, _ in COMMANDS.values()} | {"dassl", "encoders"}
    for path in ours(path for folder in folders for path in (ROOT / folder).glob("**/*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name in SPOKEN_ELSEWHERE or name.endswith("/dassl/__init__.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said = [start for start in starts if start in node.value]
                assert not said or is_docstring(node.value, path), f"{name}: {node.value!r}"


def is_docstring(text: str, path: Path) -> bool:
    return f'"""{text}' in path.read_text(encoding="utf-8")
