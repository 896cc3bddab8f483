"""`python -m sweep COMMAND`; see docs/sweeps.md."""

from __future__ import annotations

import sys

from dassl.utils.cli import run_cli
from sweep.cli import main

if __name__ == "__main__":
    codes: list[int] = []
    wrong = run_cli(lambda: codes.append(main()))
    sys.exit(wrong or codes[0])
