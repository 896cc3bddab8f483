"""The tests marked `gpu`, as a part: how many passed, and which did not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import torch

from benchmarks.gpu_day.part import ROOT, Result, run_part

PROCESSES = "8"  # share the card: models are tiny


def measure(device: torch.device) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", PROCESSES, "-m", "gpu"]
        command += [f"--junit-xml={report}", *files_with_gpu_tests()]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        yield {"key": "tests", "exit_code": code, **counts(report)}


def files_with_gpu_tests() -> list[str]:
    """Returns the files that name the marker: the others need not be imported."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(p.relative_to(ROOT)) for p in files if "mark.gpu" in p.read_text(encoding="utf-8")]


def counts(report: Path) -> Result:
    """Returns what a JUnit report says; a skipped test has shown nothing."""
    result: Result = {"passed": 0, "failed": 0, "skipped": 0, "failures": []}
    if not report.exists():
        return result
    for case in ElementTree.parse(report).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        result["failed" if failed else "skipped" if skipped else "passed"] += 1
        if failed:
            result["failures"].append(f"{case.get('classname')}::{case.get('name')}")
    return result


if __name__ == "__main__":
    run_part(measure)
