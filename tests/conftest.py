"""Puts the repository root on the path (the project runs from there); skips tests without a GPU."""

import atexit
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
_cache = tempfile.TemporaryDirectory(prefix="test-cache-")  # the user's own stays as it is
atexit.register(_cache.cleanup)
os.environ["XDG_CACHE_HOME"] = _cache.name
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in background jobs of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # tiny models: more threads only wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
