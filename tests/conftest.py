"""Puts the repository root on the path: the project runs from there and is never installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
