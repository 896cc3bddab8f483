"""The project's pages: their code blocks, their commands, their text without code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.runs import ROOT, ours

REASONS = {  # what a block that cannot be tried here may need; said in a comment in front of it
    "network": "something is fetched",
    "data": "images of a benchmark, or of one's own",
    "weights": "pretrained weights",
    "gpu": "a GPU",
    "cluster": "SLURM or Ray",
    "time": "longer than a test may take",
}
_FENCE = re.compile(
    r"(?:<!-- needs: (?P<needs>[a-z, ]+) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")? *\n"
    r"(?P<text>.*?)^(?P=indent)``` *$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"(?<!`)`((?:[^`\n]|\n(?!\n))+)`(?!`)")
_PROGRAMS = ("python ", "promptlearn ", "bash ", "scripts/", "DATA=")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str
    text: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Returns README, CONTRIBUTING and docs/."""
    return ours([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, page: str = "a page") -> list[Block]:
    """Returns the fenced blocks of a page's text."""
    return [
        Block(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["title"] or "",
            found["text"],
            tuple(re.findall(r"[a-z]+", found["needs"] or "")),
        )
        for found in _FENCE.finditer(text)
    ]


def prose(text: str) -> str:
    """Returns a page's text with its fenced blocks left out."""
    return _FENCE.sub("", text)


def inline(text: str) -> list[str]:
    """Returns what stands between single backticks."""
    return [" ".join(code.split()) for code in _INLINE.findall(prose(text))]


def inline_commands(text: str) -> list[str]:
    return [code for code in inline(text) if code.startswith(_PROGRAMS) and " " in code]


def commands(text: str) -> Iterator[list[str]]:
    """Yields the commands of lines for a shell as words; "…" stands for words that are left out.

    Pipes, redirections, comments and settings of variables in front are left out.
    """
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("|&;"):
                yield from _one(words)
                words = []
            elif set(word) <= set("<>"):
                next(lexer, None)
            elif word not in ("…", "..."):
                words.append(word)
        yield from _one(words)


def _one(words: list[str]) -> Iterator[list[str]]:
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words:
        yield words
