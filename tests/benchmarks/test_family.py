"""The family's benchmark on a tiny CLIP: both paths run, and give the same numbers."""

from __future__ import annotations

import shlex

import pytest
import torch

from benchmarks import family, measure
from benchmarks.bars import FAMILY_BARS
from benchmarks.family import CASES, FamilyBench
from benchmarks.measure import largest_difference
from benchmarks.text_encoding import class_names
from benchmarks.whole_job_data import SMALL


@pytest.mark.parametrize("case", [c for c in CASES if c.n_cls == 5], ids=lambda c: c.key)
def test_both_paths(case):
    bench = FamilyBench(torch.device("cpu"), "fp32", class_names(), SMALL)
    assert largest_difference(bench.works(case)) < 1e-4


def test_every_bar_is_measured():
    assert {key for bar in FAMILY_BARS for key in bar.keys} <= {case.key for case in CASES}


@pytest.mark.slow
def test_its_lines(monkeypatch, capsys):
    command = "family.py --tiny --seconds 0 --only 'MaPLe 5' 'text TCP 5'"
    monkeypatch.setattr("sys.argv", shlex.split(command))
    for name, small in {"TURN": 0.0, "PRODUCTS": ((8, 8, 8),), "READ": 2**10}.items():
        monkeypatch.setattr(measure, name, small)
    assert family.main() == 0
    keys = [line.split(" plain")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert keys == ["step MaPLe 5 b4", "text TCP 5 b4"]
