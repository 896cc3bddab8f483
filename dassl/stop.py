"""The end of a command that cannot even begin, before anything else is imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]


def stop(message: str) -> NoReturn:
    """Ends a command of ours with one sentence and exit code 2; elsewhere, raises ImportError."""
    program = Path(sys.argv[0] if sys.argv else "")
    module = program.name in ("-m", "__main__.py", "promptlearn")
    if not module and program.resolve().parent not in (ROOT, ROOT / "scripts"):
        raise ImportError(message)
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)
