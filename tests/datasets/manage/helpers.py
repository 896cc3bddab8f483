"""Runs `python -m datasets` within the process."""

from __future__ import annotations

from pathlib import Path

import datasets.__main__ as cli
from dassl.utils.cli import run_cli


def run(*args) -> int:
    return run_cli(lambda: cli.main([str(arg) for arg in args]))


def check(capsys, root, name="DescribableTextures", *options) -> tuple[int, str]:
    """Runs `verify` and returns its exit code and all it printed."""
    code = run("verify", name, "--root", root, *options)
    printed = capsys.readouterr()
    return code, " ".join((printed.out + printed.err).split())


def overwrite(path: Path, content: bytes) -> None:
    """Changes one file alone, not all that are linked to it."""
    path.unlink()
    path.write_bytes(content)
