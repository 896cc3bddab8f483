"""The command `promptlearn`, and `import promptlearn`: both find the repository from anywhere.

`pip install -e .` in the repository installs this one file. The packages stay where they are, as
`datasets` and `trainers` are names that others use, too. In a notebook:

    import promptlearn  # from here on: from train import main
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What is typed → the file or the package that does it; those that are there are offered.
COMMANDS = {
    "train": "train.py",
    "predict": "predict.py",
    "sweep": "sweep",
    "data": "datasets",
    "prompts": "prompts",
    "explore": "explore",
    "features": "features",
    "trainers": "trainers",
    "demo": "scripts/demo.py",
}

if not (ROOT / "train.py").is_file():
    raise ImportError(
        f"promptlearn was copied to {__file__}, away from its repository. Install it from there, "
        "with -e: pip uninstall -y promptlearn && pip install -e FOLDER"
    )
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # first: other packages are called `datasets`, too


def available() -> dict[str, Path]:
    """Returns the commands that this repository has."""
    targets = {name: ROOT / target for name, target in COMMANDS.items()}
    return {
        name: path
        for name, path in targets.items()
        if path.is_file() or (path / "__main__.py").is_file()
    }


def main() -> None:
    """Does what `python train.py` and `python -m sweep` do, in the folder where it is typed."""
    commands, words = available(), sys.argv[1:]
    usage = f"usage: promptlearn {{{','.join(commands)}}} [arguments]; promptlearn COMMAND --help"
    if not words or words[0] in ("-h", "--help"):
        print(f"{usage}\n\n{ROOT}")
        raise SystemExit(0 if words else 2)
    if words[0] not in commands:
        print(f"error: promptlearn has no command {words[0]!r}\n{usage}", file=sys.stderr)
        raise SystemExit(2)
    path = commands[words[0]]
    sys.argv = [str(path), *words[1:]]
    if path.is_file():
        runpy.run_path(str(path), run_name="__main__")
    else:
        runpy.run_module(path.name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
