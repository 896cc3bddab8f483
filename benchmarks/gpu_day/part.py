"""What the parts share: their command line, their report, small runs of the whole program."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import add_result, describe_run
from dassl.utils import load_checkpoint
from dassl.utils.checkpoint import saved_epochs
from dassl.utils.device import multiply_in_full
from dassl.utils.results import read_records

ROOT = Path(__file__).resolve().parents[2]
Result = dict[str, Any]


def run_part(measure: Callable[[torch.device], Iterator[Result]]) -> None:
    """Parses `--device` and `--json`, and writes and prints each result as it comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    multiply_in_full()  # as `train.py` does
    report: dict[str, Any] = {**describe_run(device=args.device), "results": []}
    for result in measure(torch.device(args.device)):
        add_result(report, result, args.json)
        shown = {k: v for k, v in result.items() if isinstance(v, int | float | str)}
        print(", ".join(f"{k} {_short(v)}" for k, v in shown.items()), flush=True)


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def digits_run(root: Path, output: Path, trainer: str, recipe: str, *opts: str) -> Namespace:
    """Returns arguments of `train.main`: the embedded CLIP learns the digits' base classes."""
    return Namespace(
        root=str(root),
        output_dir=str(output),
        trainer=trainer,
        seed=1,
        subsample_classes="base",
        dataset_config_file=str(ROOT / "configs/datasets/digits.yaml"),
        config_file=str(ROOT / f"configs/trainers/{recipe}.yaml"),
        opts=["DATASET.NUM_SHOTS", "16", *opts],
    )


def accuracies(output: Path) -> list[float]:
    """Returns what a run's records say, in per cent."""
    return [r["metrics"]["accuracy"] for r in read_records(output / "results.jsonl")]


def learned(output: Path) -> dict[str, torch.Tensor]:
    """Returns the parameters that a run has learned: those of its last checkpoint."""
    folder = output / "prompt_learner"
    path = folder / f"model.pth.tar-{max(saved_epochs(folder))}"
    state = load_checkpoint(str(path))["state_dict"]
    return {k: v for k, v in state.items() if not k.startswith("token_")}


def difference(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> float:
    """Returns the largest difference of two runs' parameters, of each one's largest number."""
    return max(
        (
            (ours[k].double() - v.double()).abs().max() / v.double().abs().max().clamp_min(1e-12)
        ).item()
        for k, v in plain.items()
    )
