"""What a measured number depends on: machine, versions, commit, command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import PIL
import torch

from dassl.utils import write_json
from dassl.utils.results import versions


def describe_run(command: list[str] | None = None, device: str = "cuda") -> dict[str, Any]:
    """Returns the circumstances of a benchmark as plain data.

    Args:
        command: how to repeat it; the command line of this process unless given.
        device: "cpu" if nothing is computed on a GPU; no GPU is then asked for its name.
    """
    on_gpu = device == "cuda" and torch.cuda.is_available()
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


def add_result(report: dict[str, Any], result: dict[str, Any], path: str | None) -> None:
    """Adds what was measured to `report["results"]`, and writes the report if there is a path.

    A result replaces the one of the same key, in its place, and says when and at which commit it
    was measured: those that the file already holds stay in it.
    """
    results = report["results"]
    if path and not results and Path(path).exists():
        results += json.loads(Path(path).read_text(encoding="utf-8"))["results"]
    result |= {key: report[key] for key in ("time", "commit")}
    keys = [other["key"] for other in results]
    if result["key"] in keys:
        results[keys.index(result["key"])] = result
    else:
        results.append(result)
    if path:
        write_json(report, path)


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
