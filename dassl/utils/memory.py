"""How much of the machine's memory is free for this process."""

from __future__ import annotations

from pathlib import Path

GUESS = 4 * 2**30  # bytes, where the system does not say

# Of a control group: its folder, then limit, use, and what of the use is files that can go.
_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        *("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
}


def free_memory(root: Path = Path("/")) -> int:
    """Returns how many bytes are free.

    That is what Linux says is available, within the limits of the control groups that a container
    or a batch system has put the process into. Elsewhere it is a guess.

    Args:
        root: folder that holds proc and sys.
    """
    available = _number(root / "proc/meminfo", "MemAvailable:")
    if available is None:
        return GUESS
    free = available * 1024
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for kind in _GROUPS.keys() & controllers.split(","):
            top, limit, used, files = _GROUPS[kind]
            # In a container the path may be the host's: the group itself is then at the top.
            folders = [root / top / path.strip("/"), *(root / top / path.strip("/")).parents]
            for folder in folders[: folders.index(root / top) + 1]:
                sizes = _text(folder / limit).strip(), _text(folder / used).strip()
                if all(size.isdecimal() for size in sizes):
                    unused = int(sizes[0]) - int(sizes[1])
                    unused += _number(folder / "memory.stat", files) or 0
                    free = min(free, max(0, unused))
    return free


def _number(path: Path, key: str) -> int | None:
    """Returns the number behind a key in a file of such pairs."""
    pairs = (line.split() for line in _text(path).splitlines())
    return next((int(pair[1]) for pair in pairs if pair[:1] == [key]), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
