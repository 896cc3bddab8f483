"""Found in the engine's place where a method's file is run as a program: `python trainers/coop.py`.

Python then looks for imports beside the file alone. Everywhere else, the engine is found first.
"""

import sys

print(
    f"error: {sys.argv[0]} is no program; train.py runs what is in trainers/. In the repository:\n"
    "  python train.py\n"
    "shows an example, and what a file of somebody else's lacks:\n"
    f"  python -m trainers check {sys.argv[0]}",
    file=sys.stderr,
)
raise SystemExit(2)
