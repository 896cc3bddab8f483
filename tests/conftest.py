"""Puts the repository root on the path (the project runs from there); shares out the GPU."""

import atexit
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
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
os.environ.setdefault("OMP_NUM_THREADS", "1")  # so do those of processes that tests start
os.fsync = lambda descriptor: None  # no test cuts the power


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=int, default=0, help="of each test at most so many; 0: all")


@pytest.hookimpl(trylast=True)  # after -m has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if most := config.getoption("--cases"):
        _leave_out_cases(config, items, most)
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def _leave_out_cases(config: pytest.Config, items: list[pytest.Item], most: int) -> None:
    """Keeps, of the cases of each test, the first, the last and some between."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for some in cases.values():
        steps = max(1, min(most, len(some)) - 1)
        kept |= {some[round(i * (len(some) - 1) / steps)] for i in range(min(most, len(some)))}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hides the GPU from all tests but those marked `gpu`, their fixtures and their processes."""
    if item.get_closest_marker("gpu"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fails a test that is marked `gpu` and takes none."""
    if not item.get_closest_marker("gpu"):
        return (yield)
    before = _allocations()
    result = yield
    assert _allocations() > before, "marked `gpu`, but nothing was computed on one"
    return result


def _allocations() -> int:
    return torch.cuda.memory_stats().get("allocation.all.allocated", 0)


@pytest.fixture(autouse=True)
def _no_gpu_taken_for_granted() -> Iterator[None]:
    """Ends what a trainer of others had begun: the CPU in place of a GPU."""
    yield
    if (module := sys.modules.get("dassl.utils.without_gpu")) is not None:
        module.keep_on_the_cpu(False)
