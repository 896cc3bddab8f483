"""Writes the tables of docs/performance.md, and the README's, from the benchmarks' results.

    python benchmarks/performance_tables.py

Each table stands between two comments in its document; the rest is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
DOCUMENT, README = ROOT / "docs/performance.md", ROOT / "README.md"
PARTS = {
    "text": "Text side, forward and backward",
    "image": "Image side",
    "step": "Whole training step",
    "test": "A batch of an evaluation",
}

STEPS = {  # the README's rows
    "step CoCoOp 5 b4": "CoCoOp, training step, 5 classes, batch of 4",
    "step CoCoOp 50 b1": "CoCoOp, training step, 50 classes, batch of 1",
    "step CoCoOp 500 b1": "CoCoOp, training step, 500 classes, batch of 1",
    "step CoOp 500 b32": "CoOp, training step, 500 classes, batch of 32",
    "test CoCoOp 50 b10": "CoCoOp, test, 50 classes, batch of 10",
}
JOBS = {
    "eurosat CoCoOp": "CoCoOp on EuroSAT, base to new, 100 epochs, batch of 4, with both tests",
    "caltech101 CoCoOp": "CoCoOp on Caltech101, base to new, 10 epochs, with both tests",
}


def table(results: list[dict[str, Any]], part: str) -> str:
    """Returns the Markdown table of one part's cases."""
    lines = [
        f"| {PARTS[part]} | plain | ours | times faster | GFLOP | share of peak | added memory |",
        "|---|---|---|---|---|---|---|",
    ]
    mine = [r for r in results if r["part"] == part]
    for r in sorted(mine, key=lambda r: (r["method"] != "CoOp", r["n_cls"], r["batch"])):
        lines.append(
            f"| {_name(r)} | {_seconds(r.get('plain_seconds'))} | {_seconds(r['ours_seconds'])} | "
            f"{_ratio(r['ratio'])} | {_pair(r, 'flops', 1e9)} | {100 * r['share_of_peak']:.0f}% | "
            f"{_pair(r, 'bytes', 2**20)} MiB |"
        )
    return "\n".join(lines)


def circumstances(report: dict[str, Any]) -> str:
    """Returns a sentence on where and how the numbers were measured."""
    peak = ", ".join(f"{k} {v / 1e9:.0f}" for k, v in report["peak_flops_per_s"].items())
    days = sorted({r["time"][:10] for r in report["results"]})
    commits = sorted({str(r["commit"])[:7] for r in report["results"]})
    return (
        f"Measured {' and '.join(days)} on {report['cpu']} ({report['threads']} threads; GPU: "
        f"{report['gpu'] or 'none'}), torch {report['torch']}, {report['precision']}, at "
        f"{', '.join(commits)} (each case's commit is in the results file). Matmul peak by backend "
        f"in GFLOP/s: {peak}; chosen: {report['backend']}."
    )


def _name(result: dict[str, Any]) -> str:
    if result["part"] == "image":
        return f"{result['batch']} images"
    words = [f"{result['method']}, {result['n_cls']} classes"]
    words += [f"batch {result['batch']}"] if result["part"] != "text" or result["batch"] > 1 else []
    words += [result["position"]] if result["position"] != "end" else []
    words += ["class-specific"] if result["csc"] else []
    return ", ".join(words)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f} s"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _pair(result: dict[str, Any], field: str, unit: float) -> str:
    """plain → ours"""
    values = (result.get(f"{path}_{field}") for path in ("plain", "ours"))
    return " → ".join("–" if value is None else f"{value / unit:,.0f}" for value in values)


def fill(document: str, blocks: dict[str, str]) -> str:
    """Returns the document with what stands between the comments replaced."""
    for name, block in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        document = re.sub(
            pattern, lambda m, b=block: m[1] + b + "\n" + m[2], document, flags=re.DOTALL
        )
    return document


def blocks_of(report: dict[str, Any]) -> dict[str, str]:
    """Returns what docs/performance.md shows of the results of `text_encoding.py`."""
    blocks = {part: table(report["results"], part) for part in PARTS}
    return {**blocks, "circumstances": circumstances(report)}


def speed(steps: dict[str, Any], jobs: dict[str, Any]) -> str:
    """Returns the README's table from the results of `text_encoding.py` and `whole_job.py`."""
    lines = ["| | the papers' formula | here | times faster |", "|---|---|---|---|"]
    found = {r["key"]: r for r in steps["results"]}
    for key, text in STEPS.items():
        if found.get(key, {}).get("ratio"):
            r = found[key]
            times = f"{_seconds(r['plain_seconds'])} | {_seconds(r['ours_seconds'])}"
            lines.append(f"| {text} | {times} | {r['ratio']:.0f} |")
    found = {r["key"]: r for r in jobs["results"]}
    for key, text in JOBS.items():
        for path, addition in (("cold", ""), ("second", "; as a seed's second method")):
            if f"{path}_ratio" in found.get(key, {}):
                r = found[key]
                times = f"{_minutes(r['plain']['total'])} | {_minutes(r[path]['total'])}"
                lines.append(f"| {text}{addition} | {times} | {r[f'{path}_ratio']:.0f} |")
    return "\n".join(lines)


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    names = ("text_encoding_cpu", "whole_job_cpu")
    texts = ((RESULTS / f"{name}.json").read_text(encoding="utf-8") for name in names)
    steps, jobs = map(json.loads, texts)
    for path, blocks in ((DOCUMENT, blocks_of(steps)), (README, {"speed": speed(steps, jobs)})):
        path.write_text(fill(path.read_text(encoding="utf-8"), blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
