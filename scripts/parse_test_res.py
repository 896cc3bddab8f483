"""Mean and standard deviation over a folder of seeds; upstream's name for `python -m sweep parse`.

python scripts/parse_test_res.py output/my_experiment
python scripts/parse_test_res.py output/my_experiment --multi-exp
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dassl.utils.cli import run_cli
from sweep.cli import main

if __name__ == "__main__":
    sys.exit(run_cli(lambda: main(["parse", *sys.argv[1:]])))
