"""The homework's job at full length: CoCoOp on EuroSAT's base classes, and both tests."""

from __future__ import annotations

from benchmarks.gpu_day.jobs import HOMEWORK, measure
from benchmarks.gpu_day.part import run_part

if __name__ == "__main__":
    run_part(lambda device: measure(device, (HOMEWORK,)))
