"""Writes the speed tables of docs and README from the benchmarks' results.

    python benchmarks/performance_tables.py

Each table stands between two comments in its document; the rest is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bars import judge
from benchmarks.gpu_day.figures import FIGURES
from benchmarks.gpu_day.plan import PARTS as PARTS_OF_THE_DAY
from dassl.utils.text import counted

RESULTS = ROOT / "benchmarks/results"
DOCUMENT, README = ROOT / "docs/performance.md", ROOT / "README.md"
METHODS = ROOT / "docs/methods.md"
PARTS = {
    "text": "Text side, forward and backward",
    "image": "Image side",
    "step": "Whole training step",
    "test": "A batch of an evaluation",
}

MEASURED_AS = {  # an assumption of `on_paper`: what `gpu_day/facts.py` measures of it
    "flops_per_s": "float16_flops_per_s",
    "bytes_per_s": "copy_bytes_per_s",
    "shortest_kernel_s": "replay_seconds",
    "launch_s": "launch_seconds",
    "multiprocessors": "multiprocessors",
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
    mine = [r for r in results if r["part"] == part]
    mine.sort(key=lambda r: (r["method"] != "CoOp", r["n_cls"], r["batch"]))
    return _lines(PARTS[part], {_name(r): r for r in mine})


def family(report: dict[str, Any]) -> str:
    """Returns the Markdown table of `family.py`'s results, methods as they were measured."""
    results = report["results"]
    methods = list(dict.fromkeys(r["method"] for r in results))
    results = sorted(results, key=lambda r: (methods.index(r["method"]), r["n_cls"]))
    names = {f"{r['method']}, {r['part']}, {r['n_cls']} classes": r for r in results}
    peak = max(report["peak_flops_per_s"].values()) / 1e9
    measured = (
        f"{report['threads']} threads of an {report['cpu']} whose matmul peak is {peak:.0f} "
        f"GFLOP/s, torch {report['torch']}:"
    )
    return f"{measured}\n\n{_lines('', names)}"


def _lines(what: str, results: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"| {what} | plain | ours | times faster | GFLOP | share of peak | added memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        lines.append(
            f"| {name} | {_seconds(r.get('plain_seconds'))} | {_seconds(r['ours_seconds'])} | "
            f"{_ratio(r['ratio'])} | {_pair(r, 'flops', 1e9)} | {100 * r['share_of_peak']:.0f}% | "
            f"{_pair(r, 'bytes', 2**20)} MiB |"
        )
    return "\n".join(lines)


def circumstances(report: dict[str, Any]) -> str:
    """Returns a sentence on where and how the numbers were measured."""
    peak = ", ".join(f"{k} {v / 1e9:.0f}" for k, v in report["peak_flops_per_s"].items())
    rate = report.get("memory_bytes_per_s")
    days = sorted({r["time"][:10] for r in report["results"]})
    commits = sorted({str(r["commit"])[:7] for r in report["results"]})
    return (
        f"Measured {' and '.join(days)} on {report['cpu']} ({report['threads']} threads; GPU: "
        f"{report['gpu'] or 'none'}), torch {report['torch']}, {report['precision']}, at "
        f"{', '.join(commits)} (each case's commit is in the results file). Matmul peak by backend "
        f"in GFLOP/s: {peak}; chosen: {report['backend']}."
    ) + (f" Memory: {rate / 1e9:.0f} GB/s." if rate else "")


def _name(result: dict[str, Any]) -> str:
    if result["part"] == "image":
        return counted(result["batch"], "image")
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


def gpu_day(folder: Path) -> str:
    """Returns a GPU day's table: a row a figure, or one for a part that has not been measured."""
    lines = ["| | bar | measured |", "|---|---|---|"]
    where: dict[str, None] = {}
    for part in PARTS_OF_THE_DAY:
        report = _read(folder / f"{part.name}.json")
        if not report:
            lines.append(f"| **{part.name}**: {part.what} | | not yet measured |")
            continue
        lines.append(f"| **{part.name}**: {part.what} | | {report['verdict']} |")
        where |= dict.fromkeys([_where(report)])
        for v in judge(report["results"], FIGURES[part.name]):
            missed = ", **missed**" if v.word == "FAIL" else ""
            limit = v.bar.limit if v.bar.has_limit else ""
            lines.append(f"| {v.bar.text} | {limit} | {v.shown}{missed} |")
    measured = (
        f"Measured {'; '.join(where)}." if where else "**Not yet measured: no GPU was at hand.**"
    )
    return f"{measured}\n\n" + "\n".join(lines)


def _where(report: dict[str, Any]) -> str:
    day, card, driver, torch, commit = (
        str(report.get(key, "unknown")) for key in ("time", "card", "driver", "torch", "commit")
    )
    return f"{day[:10]} on {card}, driver {driver}, torch {torch}, at {commit[:7]}"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def on_paper(report: dict[str, Any], folder: Path) -> str:
    """Returns the estimates' table: a row a term, a column a job, and what the day measured."""
    jobs = report["jobs"]
    rows = list(dict.fromkeys(term for found in jobs.values() for term in found))
    rows.sort(key=lambda term: term.startswith(("steps, ", "total", "four")))  # what is no term
    lines = [f"| seconds | {' | '.join(jobs)} |", "|---" * (1 + len(jobs)) + "|"]
    for term in rows:
        cells = [f"{found[term]:,.1f}" if term in found else "" for found in jobs.values()]
        name = f"**{term}**" if term in ("total", "four at once") else term
        lines.append(f"| {name} | {' | '.join(cells)} |")
    found = {r["key"]: r for r in _read(folder / "homework.json").get("results", [])}
    whole = found.get("eurosat CoCoOp", {}).get("whole_seconds")
    shown = "not yet measured" if whole is None else f"{whole:.1f}"
    return "\n".join([*lines, f"| measured on a GPU | {shown} |{' |' * (len(jobs) - 1)}"])


def paper_steps(report: dict[str, Any]) -> str:
    """Returns what single steps launch, and what card and host should need for them."""
    lines = ["| | kernels | GFLOP | on the card | launched one by one |", "|---|---|---|---|---|"]
    for step in report["steps"]:
        times = (step["device_seconds"], max(step["device_seconds"], step["host_seconds"]))
        cells = [f"{step['kernels']}", f"{step['flops'] / 1e9:,.0f}"]
        cells += [f"{1e3 * seconds:.2f} ms" for seconds in times]
        lines.append(f"| {step['key']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def assumed(report: dict[str, Any], folder: Path) -> str:
    """Returns what the estimates assume, beside what a GPU day measured of it."""
    rates = {r["key"]: r for r in _read(folder / "machine.json").get("results", [])}
    rates = {k: v for r in rates.values() for k, v in r.items()}
    lines = ["| assumed | | from where | measured on a GPU |", "|---|---|---|---|"]
    for name, (value, source) in report["assumed"].items():
        key = MEASURED_AS.get(name)
        shown = "" if key is None else f"{rates[key]:.3g}" if key in rates else "not yet measured"
        lines.append(f"| {name} | {value:.4g} | {source} | {shown} |")
    return "\n".join(lines)


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
    names = ("text_encoding_cpu", "whole_job_cpu", "on_paper", "family_cpu")
    steps, jobs, paper, others = (_read(RESULTS / f"{name}.json") for name in names)
    day = RESULTS / "gpu"
    blocks_of_a_gpu = {
        "gpu_day": gpu_day(day),
        "on_paper": on_paper(paper, day),
        "paper_steps": paper_steps(paper),
        "assumed": assumed(paper, day),
    }
    written = {
        DOCUMENT: {**blocks_of(steps), **blocks_of_a_gpu},
        README: {"speed": speed(steps, jobs)},
        METHODS: {"family": family(others)},
    }
    for path, blocks in written.items():
        path.write_text(fill(path.read_text(encoding="utf-8"), blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
