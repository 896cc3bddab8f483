"""Puts the repository root on the path (the project runs from there) and skips what needs a GPU."""

import atexit
import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
_cache = tempfile.TemporaryDirectory(prefix="test-cache-")  # the user's own stays as it is
atexit.register(_cache.cleanup)
os.environ["XDG_CACHE_HOME"] = _cache.name
torch.set_num_threads(1)  # tiny models: more threads only wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
