"""Found in the engine's place where a dataset's file is run as a program: `python datasets/dtd.py`.

Python then looks for imports beside the file alone. Everywhere else, the engine is found first.
"""

import sys

print(
    f"error: {sys.argv[0]} is no program; it is used by train.py. In the repository:\n"
    "  python train.py\n"
    "shows an example, and the datasets are managed by:\n"
    "  python -m datasets --help",
    file=sys.stderr,
)
raise SystemExit(2)
