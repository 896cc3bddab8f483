"""Draws where the time of whole jobs goes: docs/performance.png, from the benchmark's results.

    python benchmarks/performance_plot.py benchmarks/results/whole_job_cpu.json

A row a job, a bar a path, split by part. The papers' formula takes many times longer than what it
is compared with, so the left panel has all paths, and the right one has ours enlarged.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.whole_job import PARTS

PICTURE = ROOT / "docs/performance.png"
PATHS = {"plain": "papers' formula", "cold": "ours", "second": "ours, second method"}
COLORS = dict(zip(PARTS, ("#7f8c8d", "#3a9d5d", "#2f6fb3", "#d9822b", "#8e5bb0")))
LABELS = {
    "start": "start-up",
    "data": "waiting for data",
    "image": "image encoder",
    "text": "text, loss, step",
    "test": "text and scores in tests",
}


def draw(report: dict[str, Any], path: Path) -> None:
    """Saves the picture of a report of `benchmarks/whole_job.py`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    jobs = report["results"]
    size = (9.5, 1.0 + 1.35 * len(jobs))
    figure, rows = pyplot.subplots(len(jobs), 2, figsize=size, dpi=150, squeeze=False)
    for job, (left, right) in zip(jobs, rows):
        there = [name for name in PATHS if name in job]
        _panel(left, job, there)
        _panel(right, job, [name for name in there if name != "plain"])
        left.set_title(job["key"], fontsize=9, loc="left", fontweight="bold")
        right.set_title("enlarged", fontsize=8, loc="left")
    for panel in rows[-1]:
        panel.set_xlabel("seconds of the whole job", fontsize=8)
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(PARTS), frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.35 / size[1], 1, 1))
    figure.savefig(path)
    pyplot.close(figure)


def _panel(panel: Any, job: dict[str, Any], paths: list[str]) -> None:
    """Draws one bar a path, the first one on top."""
    start = [0.0] * len(paths)
    for part in PARTS:
        seconds = [job[path][part] for path in paths]
        panel.barh(paths, seconds, 0.7, left=start, color=COLORS[part], label=LABELS[part])
        start = [a + b for a, b in zip(start, seconds)]
    for place, (path, end) in enumerate(zip(paths, start)):
        ratio = job.get(f"{path}_ratio")
        times = "" if ratio is None else f", {ratio:.1f}×"
        text = f" {job[path]['total']:,.0f} s{times}"
        panel.annotate(text, (end, place), va="center", fontsize=8)
    panel.set_yticks(range(len(paths)), [PATHS[path] for path in paths], fontsize=8)
    panel.set_ylim(len(paths) - 0.4, -0.6)
    panel.set_xlim(0, 1.22 * max(start))
    panel.tick_params(axis="x", labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="results of benchmarks/whole_job.py")
    parser.add_argument("--output", type=Path, default=PICTURE)
    args = parser.parse_args()
    draw(json.loads(args.json.read_text(encoding="utf-8")), args.output)


if __name__ == "__main__":
    main()
