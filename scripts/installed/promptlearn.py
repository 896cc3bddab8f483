"""The command `promptlearn`, and `import promptlearn`: both find the repository from anywhere.

`pip install -e .` in the repository installs this one file. The packages stay where they are, as
`datasets` and `trainers` are names that others use, too. In a notebook:

    import promptlearn  # from here on: from train import main
"""

from __future__ import annotations

import difflib
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "train.py").is_file():
    raise ImportError(
        f"promptlearn was copied to {__file__}, away from its repository. Install it from there, "
        "with -e: pip uninstall -y promptlearn && pip install -e FOLDER"
    )
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # first: other packages are called `datasets`, too

from dassl.command import COMMANDS, STARTED_BY

os.environ[STARTED_BY] = NAME = "promptlearn"


def help_text() -> str:
    """Returns the commands, an example of each kind, and where the repository is."""
    width = max(map(len, COMMANDS))
    lines = [f"  {word:{width}}  {about}" for word, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {NAME} COMMAND [arguments]",
            f"\nRuns what is in {ROOT}, in the folder where it is typed.\n",
            *lines,
            "\nexamples:",
            f"  {NAME} demo                                two minutes, no download",
            f"  {NAME} data download EuroSAT --root data",
            f"  {NAME} sweep run cocoop-1 --dry-run        what a paper's table needs",
            f"  {NAME} train --help",
        ]
    )


def main() -> None:
    """Does what `python train.py` and `python -m sweep` do, in the folder where it is typed."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        raise SystemExit(0 if words else 2)
    if words[0] not in COMMANDS:
        targets = {Path(target).stem: word for word, (target, _) in COMMANDS.items()}
        near = difflib.get_close_matches(words[0], [*COMMANDS, *targets], n=1)
        meant = f" Did you mean {targets.get(near[0], near[0])!r}?" if near else ""
        print(
            f"error: {NAME} has no command {words[0]!r}; expected one of "
            f"{', '.join(COMMANDS)}.{meant}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    path = ROOT / COMMANDS[words[0]][0]
    sys.argv = [str(path), *words[1:]]
    if path.is_file():
        runpy.run_path(str(path), run_name="__main__")
    else:
        runpy.run_module(path.name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
