"""Imported first by every command: ends it where Python is too old, or packages are lacking.

Old Pythons read this file, too.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from dassl.stop import ROOT, is_command, stop

OLDEST = (3, 10)
INSTALL = "pip install -r requirements.txt"
# Import names of what every run needs, and what pip calls them where that differs.
NEEDED = {
    **{name: name for name in ("torch", "torchvision", "yacs", "filelock", "tabulate", "tqdm")},
    **{"PIL": "pillow", "yaml": "pyyaml", "numpy": "numpy"},
}


def require_python_and_packages() -> None:
    """Ends the program if its Python is too old, or lacks packages: before anything fails of it."""
    version = sys.version_info[:2]
    if version < OLDEST:
        stop(
            f"{sys.executable} is Python {version[0]}.{version[1]}; Python {OLDEST[0]}.{OLDEST[1]} "
            "or newer is needed (python3.12 -m venv .venv && . .venv/bin/activate)"
        )
    lacking = [package for name, package in NEEDED.items() if find_spec(name) is None]
    if lacking:
        stop(
            f"{sys.executable} lacks {', '.join(lacking)}: {INSTALL} in {ROOT} (or activate the "
            "environment where they are; bash scripts/demo.sh makes one)"
        )


def say_interrupted(kind: type, error: BaseException, trace: Any) -> None:
    """Takes the place of `sys.excepthook`: Ctrl-C while torch is imported is no accident."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


require_python_and_packages()
if is_command():
    sys.excepthook = say_interrupted
