"""The end of a command that cannot even begin, before anything else is imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]


def is_command() -> bool:
    """Whether this program is a command of ours; elsewhere, we are a library."""
    program = Path(sys.argv[0] if sys.argv else "")
    module = program.name in ("-m", "__main__.py", "promptlearn")
    return module or program.resolve().parent in (ROOT, ROOT / "scripts")


def stop(message: str) -> NoReturn:
    """Ends a command of ours with one sentence and exit code 2; elsewhere, raises ImportError."""
    if not is_command():
        raise ImportError(message)
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)
