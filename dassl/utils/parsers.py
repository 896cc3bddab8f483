"""Command lines that are alike: --help ends with examples, and all know --quiet and --verbose."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from dassl.utils.errors import closest

_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from ([^)]*)\)")  # argparse's words
WIDTH, GAP = 92, 3  # characters: of a line, and between a command and what it does


class Parser(argparse.ArgumentParser):
    """The parser of a command, or of one of its subcommands, which `add_subparsers` makes of it.

    Args:
        prog: what is typed to start it (`dassl.command.command`).
        text: what it does.
        examples: arguments → what they do, or "". Where "{}" is in them, the command stands there.
        exit_codes: code → when, beside 0, 2 and 130.
        talks: has --quiet and --verbose; a command with subcommands leaves that to them.
    """

    def __init__(
        self,
        prog: str,
        text: str,
        examples: Mapping[str, str],
        exit_codes: Mapping[int, str] | None = None,
        talks: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            prog=prog,
            description=text,
            epilog=f"examples:\n{examples_text(prog, examples)}\n\n{_codes(exit_codes or {})}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )
        if talks:
            add_talk(self)

    def error(self, message: str) -> NoReturn:
        dashed = [word for word in sys.argv[1:] if word[:1] == "-" and word != "-"]
        if named := next((word for word in dashed if Path(word).exists()), ""):
            message += f"; the file {named} is written ./{named}"
        if choice := _CHOICE.search(message):
            allowed = [word.strip("' ") for word in choice[2].split(",")]
            message += f".{closest(choice[1], allowed)}"
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message}\n{self.prog} --help shows examples\n")


def add_talk(parser: argparse.ArgumentParser) -> None:
    """Adds --quiet and --verbose, which mean the same everywhere (`logger.talking`)."""
    talk = parser.add_argument_group("how much is said").add_mutually_exclusive_group()
    add = talk.add_argument
    add("--quiet", "-q", action="store_true", help="only notes, what failed, and the answer")
    add("--verbose", "-v", action="store_true", help="also where things come from and errors arise")


def examples_text(prog: str, examples: Mapping[str, str]) -> str:
    """Returns examples as help shows them (`Parser`): whole commands, and what they do."""
    lines = {}
    for words, about in examples.items():
        line = words.format(prog) if "{}" in words else f"{prog} {words}".rstrip()
        lines[line] = about
    width = max(map(len, lines))
    if width + GAP + max(map(len, lines.values())) <= WIDTH:
        return "\n".join(f"  {line:{width + GAP}}{about}".rstrip() for line, about in lines.items())
    shown = []
    for line, about in lines.items():
        shown += [f"  {about}:"] if about else []
        parts = textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        shown.append("    " + " \\\n        ".join(parts))
    return "\n".join(shown)


def _codes(others: Mapping[int, str]) -> str:
    known = {0: "done", 2: "a mistake in what was given or found", 130: "interrupted"}
    meanings = sorted((known | dict(others)).items())
    text = "exit code: " + ", ".join(f"{code} {when}" for code, when in meanings)
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")
