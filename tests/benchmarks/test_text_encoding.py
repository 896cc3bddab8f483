"""The benchmark's own parts: bars, tables, counting and timing."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from benchmarks.bars import BARS, failures, judge
from benchmarks.machine import add_result
from benchmarks.measure import added_memory, by_turns, count_flops, ratio_of
from benchmarks.performance_tables import (
    DOCUMENT,
    METHODS,
    README,
    blocks_of,
    family,
    fill,
    speed,
)
from benchmarks.text_encoding import CASES

CPU = torch.device("cpu")


def result(key: str, **values) -> dict:
    part, method, n_cls, batch, *_ = key.split()
    return {
        "key": key,
        "part": part,
        "method": method,
        "n_cls": int(n_cls),
        "batch": int(batch[1:]),
        "position": "end",
        "csc": False,
        "ratio": 100.0,
        "plain_seconds": 1.0,
        "ours_seconds": 0.01,
        "image_seconds": 0.01,
        "plain_flops": 10**12,
        "ours_flops": 10**10,
        "plain_bytes": 10**9,
        "ours_bytes": 10**7,
        "ours_total_bytes": 3 * 10**9,
        "share_of_peak": 0.7,
        "share_of_roofline": 0.7,
        "time": "2026-11-20T10:00:00+00:00",
        "commit": "0123456789",
        **values,
    }


def test_bars_name_cases_that_exist():
    keys = {case.key for case in CASES}
    assert len(keys) == len(CASES)
    assert {key for bars in BARS.values() for bar in bars for key in bar.keys} <= keys


def test_failures(capsys):
    bars = BARS["cpu"]
    results = [result(case.key) for case in CASES]
    assert failures(results, bars) == 0
    assert capsys.readouterr().out.count("pass ") == len(bars)
    slow = [r if r["key"] != "step CoCoOp 5 b4" else {**r, "ratio": 4.9} for r in results]
    assert failures(slow, bars) == 1
    out = capsys.readouterr().out
    assert "FAIL         CoCoOp, step, 5 classes, batch 4: times faster: 4.9 (at least 5; at" in out
    halved = result("step CoCoOp 5 b4", ratio=4.0, share_of_peak=0.5)
    (verdict,) = judge([halved], [bar for bar in bars if "step CoCoOp 5 b4" in bar.keys])
    assert (verdict.value, verdict.at_peak) == (4.0, 8.0)
    without_plain = result("step CoCoOp 5 b4", ratio=None)
    assert [v.word for v in judge([without_plain], bars) if v.value] == []
    assert failures([], bars) == len(bars)


def test_bars_of_a_gpu(capsys):
    key = "step CoCoOp 1000 b1"
    results = [result("step CoCoOp 5 b4", ours_seconds=0.002), result(key, ours_seconds=0.02)]
    assert failures(results, BARS["cuda"]) == 0
    results[1]["ours_total_bytes"] = 4.1e9
    assert failures(results, BARS["cuda"]) == 1
    assert "GB on the GPU: 4.1 (at most 4.0)" in capsys.readouterr().out


def test_document_can_be_filled():
    report = {
        "time": "2022-01-01T00:00:00",
        "command": "python x",
        "cpu": "a processor",
        "gpu": None,
        "threads": 2,
        "torch": "2",
        "commit": "abc",
        "precision": "fp32",
        "backend": "torch",
        "peak_flops_per_s": {"torch": 1e11},
        "results": [result(case.key, ratio=None) for case in CASES],
    }
    blocks = blocks_of(json.loads(json.dumps(report)))
    filled = fill(DOCUMENT.read_text(encoding="utf-8"), blocks)
    assert "| CoCoOp, 500 classes, batch 4 | 1.000 s | 0.010 s | – | 1,000 → 10 | 70% |" in filled
    assert "Measured 2026-11-20 on a processor (2 threads; GPU: none)" in filled
    assert "at 0123456 (each" in filled
    assert fill(filled, blocks) == filled
    table = family({**report, "results": [result("text TCP 50 b4", method="TCP", part="text")]})
    filled = fill(METHODS.read_text(encoding="utf-8"), {"family": table})
    assert "whose matmul peak is 100 GFLOP/s, torch 2:" in filled and "| TCP, text, " in filled


def test_a_result_stands_beside_those_of_other_commits(tmp_path: Path):
    path = str(tmp_path / "results.json")
    for commit, keys in (("a", ("one", "two")), ("b", ("two", "three"))):
        report = {"time": "now", "commit": commit, "results": []}
        for key in keys:
            add_result(report, {"key": key}, path)
    written = json.loads(Path(path).read_text(encoding="utf-8"))
    assert written == report
    assert [(r["key"], r["commit"]) for r in written["results"]] == [
        ("one", "a"),
        ("two", "b"),
        ("three", "b"),
    ]


def test_the_readme_shows_ratios_alone():
    steps = {"results": [result("step CoCoOp 5 b4"), result("step CoCoOp 50 b1", ratio=None)]}
    job = {"key": "eurosat CoCoOp", "plain": {"total": 7200.0}, "cold": {"total": 700.0}}
    table = speed(steps, {"results": [{**job, "cold_ratio": 10.3}]})
    assert "batch of 4 | 1.000 s | 0.010 s | 100 |" in table
    assert "with both tests | 2 h 00 min | 12 min | 10 |" in table
    assert len(table.splitlines()) == 4
    assert table in fill(README.read_text(encoding="utf-8"), {"speed": table})


def test_measuring():
    x = torch.randn(64, 128)
    assert count_flops(lambda: x @ x.t()) == 2 * 64 * 128 * 64
    times = by_turns({"plain": lambda: x @ x.t(), "ours": lambda: None}, CPU, 0.01)
    assert len(times["plain"]) == len(times["ours"]) >= 3
    assert ratio_of({"plain": [2.0, 6.0, 4.0], "ours": [1.0, 2.0, 1.0]}) == 3.0
    added = added_memory(lambda: torch.ones(10**7), CPU)
    assert added is None or added > 3.9e7
