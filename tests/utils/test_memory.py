"""Free memory, as several systems tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dassl.data import image_cache
from dassl.data.image_cache import MOST, cache_bytes
from dassl.utils.memory import GUESS, free_memory

GIB = 2**30
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


def write(root: Path, **files: object) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))


@pytest.fixture
def machine(tmp_path):
    """100 GiB are available; the process is in the groups a/b."""
    write(
        tmp_path,
        **{
            "proc/meminfo": f"MemTotal: 9 kB\nMemAvailable:   {100 * 2**20} kB\n",
            "proc/self/cgroup": "5:cpu,memory:/a/b\n1:name=systemd:/c\n0::/a/b\n",
        },
    )
    return tmp_path


def test_a_whole_machine(machine):
    assert free_memory(machine) == 100 * GIB


@pytest.mark.parametrize("folder", ["a/b", "a", "."])  # one's own, one above, a container's root
@pytest.mark.parametrize(
    ("top", "limit", "used", "files"),
    [
        (V2, "memory.max", "memory.current", "inactive_file"),
        (V1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_limited_group(machine, top, limit, used, files, folder):
    group = f"{top}/{folder}"
    write(machine, **{f"{group}/{limit}": 8 * GIB, f"{group}/{used}": 5 * GIB})
    assert free_memory(machine) == 3 * GIB
    write(machine, **{f"{group}/memory.stat": f"anon 1\n{files} {GIB}\n"})
    assert free_memory(machine) == 4 * GIB
    write(machine, **{f"{group}/{used}": 20 * GIB})
    assert free_memory(machine) == 0


def test_a_group_without_limit(machine):
    write(machine, **{f"{V2}/a/memory.max": "max\n", f"{V2}/a/memory.current": 5 * GIB})
    assert free_memory(machine) == 100 * GIB


def test_other_systems(tmp_path):
    assert free_memory(tmp_path) == GUESS


def test_the_share_of_kept_images(monkeypatch):
    monkeypatch.setattr(image_cache, "free_memory", lambda: 8 * GIB)
    assert [cache_bytes(mib) for mib in (-1, 0, 3)] == [2 * GIB, 0, 3 * 2**20]
    monkeypatch.setattr(image_cache, "free_memory", lambda: 800 * GIB)
    assert cache_bytes(-1) == MOST
