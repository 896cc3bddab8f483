"""Writes the tables of docs/performance.md from the benchmark's results.

    python benchmarks/performance_tables.py benchmarks/results/text_encoding_cpu.json

Each table stands between two comments in the document; the rest of it is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[1] / "docs/performance.md"
PARTS = {
    "text": "Text side, forward and backward",
    "image": "Image side",
    "step": "Whole training step",
    "test": "A batch of an evaluation",
}


def table(results: list[dict[str, Any]], part: str) -> str:
    """Returns the Markdown table of one part's cases."""
    lines = [
        f"| {PARTS[part]} | plain | ours | times faster | GFLOP | share of peak | added memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        if r["part"] != part:
            continue
        lines.append(
            f"| {_name(r)} | {_seconds(r.get('plain_seconds'))} | {_seconds(r['ours_seconds'])} | "
            f"{_ratio(r['ratio'])} | {_pair(r, 'flops', 1e9)} | {100 * r['share_of_peak']:.0f}% | "
            f"{_pair(r, 'bytes', 2**20)} MiB |"
        )
    return "\n".join(lines)


def circumstances(report: dict[str, Any]) -> str:
    """Returns a sentence on where and how the numbers were measured."""
    peak = ", ".join(f"{k} {v / 1e9:.0f}" for k, v in report["peak_flops_per_s"].items())
    return (
        f"Measured {report['time'][:10]} with `{report['command']}` on {report['cpu']} "
        f"({report['threads']} threads; GPU: {report['gpu'] or 'none'}), torch {report['torch']}, "
        f"commit {report['commit'] or 'unknown'}, {report['precision']}. Matmul peak by backend in "
        f"GFLOP/s: {peak}; chosen: {report['backend']}."
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


def fill(document: str, report: dict[str, Any]) -> str:
    """Returns the document with what stands between the comments replaced."""
    blocks = {part: table(report["results"], part) for part in PARTS}
    blocks["circumstances"] = circumstances(report)
    for name, block in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        document = re.sub(
            pattern, lambda m, b=block: m[1] + b + "\n" + m[2], document, flags=re.DOTALL
        )
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="results of benchmarks/text_encoding.py")
    report = json.loads(parser.parse_args().json.read_text(encoding="utf-8"))
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(fill(document, report), encoding="utf-8")


if __name__ == "__main__":
    main()
