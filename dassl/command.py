"""How a person starts a command of ours, which is not the same everywhere.

In the repository one types `python -m sweep`, from anywhere `promptlearn sweep`. What help and
messages say is to be typed is what works for whoever reads it. Old Pythons read this file, too.
"""

from __future__ import annotations

import os

STARTED_BY = "PROMPTLEARN_COMMAND"  # in the environment, so that worker processes know it, too

# What follows `promptlearn` → the file or the package that does it, and what that is.
COMMANDS = {
    "train": ("train.py", "trains a method, or evaluates what it has learned"),
    "predict": ("predict.py", "classifies pictures with what a run has learned"),
    "sweep": ("sweep", "the papers' protocols: runs, tables, one page with everything"),
    "data": ("datasets", "lists, downloads, converts and checks datasets"),
    "prompts": ("prompts", "what a run has learned, in words and in files"),
    "explore": ("explore", "one HTML page on runs"),
    "features": ("features", "the store of image features: what is in it, and how to empty it"),
    "trainers": ("trainers", "looks into somebody else's trainer, and tries it"),
    "demo": ("scripts/demo.py", "CoOp and CoCoOp in two minutes, without a download"),
}


def command(name: str, python: str = "python") -> str:
    """Returns what a person types to start a command.

    Args:
        name: of the package, or of the file without suffix: "sweep", "datasets", "train".
        python: the program, where that is another than what is called so.
    """
    for word, (target, _) in COMMANDS.items():
        if name == os.path.splitext(os.path.basename(target))[0]:
            if STARTED_BY in os.environ:
                return f"{os.environ[STARTED_BY]} {word}"
            return f"{python} {target}" if target.endswith(".py") else f"{python} -m {target}"
    raise KeyError(name)
