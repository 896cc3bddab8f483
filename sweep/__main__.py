"""`python -m sweep COMMAND`; see docs/sweeps.md."""

from __future__ import annotations

import sys

import dassl.start  # noqa: F401  # isort: skip - first: it checks Python and its packages

from dassl.utils.cli import run_cli
from sweep.cli import main

if __name__ == "__main__":
    sys.exit(run_cli(main))
