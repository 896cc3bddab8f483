"""Zero-shot CLIP, CoOp and CoCoOp on the embedded default: base to new classes, three seeds.

Everything goes through `train.main`; the table and the chart are made from the run records alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate

import train
from dassl.utils.cli import run_cli
from dassl.utils.results import read_records

SHOTS = 16
METHODS = {"ZeroshotCLIP": "zero-shot CLIP", "CoOp": "CoOp", "CoCoOp": "CoCoOp"}
Scores = dict[tuple[str, str], list[float]]  # (trainer, classes) → accuracies, one a seed


def arguments(trainer: str, root: Path, output: Path, **more: object) -> argparse.Namespace:
    recipe = "CoOp" if trainer == "ZeroshotCLIP" else trainer
    return argparse.Namespace(
        trainer=trainer,
        root=str(root),
        output_dir=str(output),
        dataset_config_file="configs/datasets/digits.yaml",
        config_file=f"configs/trainers/{recipe}/tiny.yaml",
        opts=["DATASET.NUM_SHOTS", str(SHOTS)],
        **more,
    )


def plan(root: Path, out: Path, seeds: list[int]) -> list[tuple[str, str, argparse.Namespace]]:
    """Returns (trainer, classes, arguments) of every run, a training before its evaluations."""
    runs = []
    for classes in ("base", "new", "all"):
        zero = arguments("ZeroshotCLIP", root, out / "zeroshot" / classes, eval_only=True, seed=1)
        zero.subsample_classes = classes
        runs.append(("ZeroshotCLIP", classes, zero))
    for seed in seeds:
        for trainer in ("CoOp", "CoCoOp"):
            folder = out / trainer.lower() / f"seed{seed}"
            base = arguments(trainer, root, folder / "base", seed=seed, subsample_classes="base")
            new = arguments(trainer, root, folder / "new", seed=seed, subsample_classes="new")
            new.eval_only, new.model_dir = True, base.output_dir
            whole = arguments(trainer, root, folder / "all", seed=seed, subsample_classes="all")
            runs += [(trainer, "base", base), (trainer, "new", new), (trainer, "all", whole)]
    return runs


def execute(args: argparse.Namespace) -> float:
    """Runs quietly (log.txt has every line); returns the accuracy of the record it left."""
    if getattr(args, "eval_only", False) and getattr(args, "model_dir", ""):
        pointer = Path(args.model_dir) / "prompt_learner" / "checkpoint"
        args.load_epoch = int(pointer.read_text().rpartition("-")[2])
    with contextlib.redirect_stdout(io.StringIO()):
        train.main(args)
    record = list(read_records(Path(args.output_dir) / "results.jsonl"))[-1]
    return record["metrics"]["accuracy"]


def run_all(runs: list[tuple[str, str, argparse.Namespace]]) -> Scores:
    scores: Scores = {}
    start = time.monotonic()
    for number, (trainer, classes, args) in enumerate(runs, 1):
        what = "evaluated" if getattr(args, "eval_only", False) else "trained and evaluated"
        accuracy = execute(args)
        scores.setdefault((trainer, classes), []).append(accuracy)
        left = (time.monotonic() - start) / number * (len(runs) - number)
        print(
            f"[{number:2}/{len(runs)}] {METHODS[trainer]:14} seed {args.seed}  {what} on {classes} "
            f"classes: {accuracy:5.1f}%   (about {left:.0f} s left)",
            flush=True,
        )
    return scores


def mean_std(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def harmonic(base: float, new: float) -> float:
    """H of base and new accuracy (CoCoOp, arXiv 2203.05557, section 4.1)."""
    return 2 * base * new / (base + new)


def table(scores: Scores) -> str:
    """Base, new, H (of the means, as in the papers) and, trained apart, all ten classes."""

    def cell(trainer: str, classes: str) -> str:
        values = scores[trainer, classes]
        mean, std = mean_std(values)
        return f"{mean:.1f} ± {std:.1f}" if len(values) > 1 else f"{mean:.1f}"

    rows = []
    for trainer, name in METHODS.items():
        means = [statistics.mean(scores[trainer, c]) for c in ("base", "new")]
        cells = [cell(trainer, c) for c in ("base", "new")]
        rows.append([name, *cells, f"{harmonic(*means):.1f}", cell(trainer, "all")])
    return tabulate(
        rows,
        ["", "base", "new", "H", "all ten"],
        colalign=("left", "right", "right", "right", "right"),
        disable_numparse=True,
    )


def chart(scores: Scores, path: Path) -> None:
    """Saves grouped bars with the seeds' standard deviation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    groups = {"base": "base classes\n(trained on)", "new": "new classes\n(never seen)"}
    groups["all"] = "all ten\n(trained on all)"
    colors = ("#9aa5b1", "#2f6fb3", "#d9822b")
    figure, axes = plt.subplots(figsize=(7, 4), dpi=150)
    for i, ((trainer, name), color) in enumerate(zip(METHODS.items(), colors)):
        stats = [mean_std(scores[trainer, c]) for c in groups]
        places = [g + (i - 1) * 0.27 for g in range(len(groups))]
        means, errors = [m for m, _ in stats], [s for _, s in stats]
        bars = axes.bar(places, means, 0.25, yerr=errors, label=name, color=color, capsize=3)
        axes.bar_label(bars, [f"{m:.1f}" for m in means], padding=3, fontsize=8)
    axes.set_xticks(range(len(groups)), groups.values())
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 119)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, loc="upper center", frameon=False)
    axes.set_title(f"Handwritten digits, {SHOTS} shots, mean and std over seeds", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder for data sets")
    parser.add_argument("--output-dir", type=Path, default=Path("output/demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    torch.set_num_threads(1)  # the model is so small that a second thread only gets in the way
    start = time.monotonic()
    scores = run_all(plan(args.root, args.output_dir, args.seeds))
    chart(scores, args.output_dir / "chart.png")
    print(f"\n{table(scores)}\n")
    print("base: first five classes, 16 shots each; new: the other five, never trained on;")
    print("H: harmonic mean of the two means; all ten: trained and tested on all. Accuracy in %.")
    print(f"\nChart            {args.output_dir / 'chart.png'}")
    print(f"Logs             {args.output_dir}/<method>/seed<k>/<classes>/log.txt")
    print(f"Learned prompts  {args.output_dir}/<method>/seed<k>/base/prompt_learner/")
    print(f"Run records      {args.output_dir}/<method>/seed<k>/<classes>/results.jsonl")
    print(f"Took {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(run_cli(main))
