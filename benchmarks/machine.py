"""What a measured number depends on: machine, versions, commit, command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import PIL
import torch

from dassl.utils.results import versions


def describe_run(command: list[str] | None = None) -> dict[str, Any]:
    """Returns the circumstances of a benchmark as plain data.

    Args:
        command: how to repeat it; the command line of this process unless given.
    """
    on_gpu = torch.cuda.is_available()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(command or ["python", *_script_and_arguments()]),
        "cpu": _cpu_model(),
        "cores": _cores(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "pillow": PIL.__version__,
        **versions(),
    }


def _script_and_arguments() -> list[str]:
    root = Path(__file__).resolve().parents[1]
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(root).as_posix() if script.is_relative_to(root) else script.name
    return [name, *sys.argv[1:]]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
