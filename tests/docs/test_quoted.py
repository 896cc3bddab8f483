"""What the page on troubles quotes of messages stands in the code."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.runs import ROOT, ours

QUOTE = re.compile(r"`([^`]*[a-z]+ [^`]*)`")  # of words, not a name
# What a message fills in, or a page leaves out: numbers, files, "…".
FILLED = re.compile(
    r"[….:]+(?: |$)|….pt|…|\d+(?:\.\d+)*|\S+\.(?:py|pt|txt)\b|torch, yacs,|\(\S+\)|TRAINER"
)


def fragments(text: str) -> list[str]:
    """Returns what stands between the parts that are filled in, sentence by sentence."""
    parts = (part.strip(" ,.:;?()'\"") for part in FILLED.sub("\0", text).split("\0"))
    return [part for part in parts if len(part) > 3]


@cache
def messages() -> list[str]:
    """Returns the texts of the code, "…" for what is filled in."""
    found = []
    for path in ours(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[0] in ("tests", "benchmarks") or any(part.startswith(".") for part in parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.JoinedStr, ast.BinOp, ast.Constant)):
                found.append(text_of(node))
    return [text for text in found if " " in text]


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return "…"


def quotes() -> list[str]:
    """Returns what the first columns of the tables of messages quote, and the bold questions."""
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    tables = text.partition("## What users of the public code")[0]
    return [
        quote
        for line in tables.splitlines()
        if line.startswith(("| `", "**`"))
        for quote in QUOTE.findall(line.split("|")[1] if line.startswith("|") else line)
    ]


@pytest.mark.parametrize("quote", quotes())
def test_the_code_says_so(quote: str):
    wanted = fragments(quote)
    missing = [part for part in wanted if not any(part in text for text in messages())]
    assert wanted and not missing


def test_there_are_quotes():
    assert len(quotes()) >= 12
    assert not any("config file is gone" in text for text in messages())
