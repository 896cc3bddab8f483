"""Whole jobs, from the command line to the last accuracy, ours beside the plain path.

    python benchmarks/whole_job.py --json benchmarks/results/whole_job_cpu.json --check

A job trains a method on the base classes and tests the base and the new ones. Each run is a process
of its own. The plain path (the papers' formulas as they stand, `benchmarks.plain`) would take
hours: it does a few steps and test images, we a share of the epochs and test images, and both are
scaled to the whole job. What happens once is not scaled: start-up, folding weights, our first
epoch, saving; the plain path's first step, a slow one, and its waiting for test images do not count
at all. Its test images come in batches of the job's size, 100, as larger batches cost it more an
image; Caltech101's with CoCoOp in a faster batch of 8. Both take turns, round by round, so that
other programs disturb both alike; a ratio is the median over rounds. `--whole` runs ours at full
length.

Seconds are split into start (and whatever else is neither training nor testing), data (waiting for
views and images), image (the image encoder), text (the rest of training) and test (the rest of the
evaluations: mostly text, too).

Per round: plain; ours from cold (nothing stored); ours as the second method of a seed, with
MODEL.FIXED_VIEWS, after another method has stored its views and test features.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bars import GPU_JOB_BARS, Bar, failures
from benchmarks.machine import add_result, describe_run
from benchmarks.whole_job_data import REAL, SHAPES, SMALL, Shape, write_data, write_weights

PARTS = ("start", "data", "image", "text", "test")
Lap = dict[str, float]  # seconds by part


@dataclass(frozen=True)
class Job:
    """What a method does on a data set."""

    name: str
    shape: Shape
    method: str
    batch: int
    epochs: int
    plain_steps: int
    plain_test: int  # images of base, and of new classes: a batch, or a smaller, faster one

    @property
    def steps(self) -> int:
        return self.shape.n_base * self.shape.train // self.batch * self.epochs


JOBS = (
    # The homework: batch 4, 100 epochs
    Job("eurosat CoCoOp", SHAPES["eurosat"], "CoCoOp", 4, 100, 6, 100),
    Job("eurosat CoOp", SHAPES["eurosat"], "CoOp", 4, 100, 6, 100),
    # As in the papers: CoOp 50 epochs of batches of 32, CoCoOp 10 epochs of single images
    Job("caltech101 CoCoOp", SHAPES["caltech101"], "CoCoOp", 1, 10, 4, 8),
    Job("caltech101 CoOp", SHAPES["caltech101"], "CoOp", 32, 50, 2, 100),
)
LEAST_TEST = 400  # images of base, and of new classes: workers start once in an evaluation
OTHER = {"CoOp": "CoCoOp", "CoCoOp": "CoOp"}


def _faster(job: str, path: str, least: float) -> Bar:
    return Bar(f"{job}, {path}: times faster", (job,), lambda r: r[job][f"{path}_ratio"], least)


CPU_BARS = (
    _faster("eurosat CoCoOp", "cold", 5.5),
    _faster("eurosat CoCoOp", "second", 20.0),
)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Runs `whole_job_runs` in a process of its own and returns its seconds."""
    command = [sys.executable, str(ROOT / "benchmarks/whole_job_runs.py")]
    request = {**request, "started": time.time()}
    done = subprocess.run(
        [*command, json.dumps(request)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{request['path']} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def whole_plain(job: Job, took: dict[str, Any]) -> Lap:
    """Scales steps and test images to the whole job: seconds by part."""
    steps = took["train"][1:]  # the first one warms up
    train = {key: job.steps * statistics.mean(step[key] for step in steps) for key in steps[0]}
    images = [n / job.plain_test for n in job.shape.test]
    tests = [_sum(took[kind]) for kind in ("test_base", "test_new")]
    test = {key: sum(n * lap[key] for n, lap in zip(images, tests)) for key in train}
    return _by_part(took["start"], train, test)


def whole_ours(job: Job, took: dict[str, Any], test: tuple[int, ...]) -> Lap:
    """Scales epochs, and the `test` images that were tested, to the whole job: seconds by part."""
    first, *rest = took["train"]
    train = {
        key: first[key] + (job.epochs - 1) * statistics.mean(lap[key] for lap in rest or [first])
        for key in first
    }
    share = sum(test) / sum(job.shape.test)
    tests = {key: seconds / share for key, seconds in _sum(took["test"]).items()}
    return _by_part(took["start"], train, tests)


def _sum(laps: list[Lap]) -> Lap:
    return {key: sum(lap[key] for lap in laps) for key in laps[0]}


def _by_part(start: float, train: Lap, test: Lap) -> Lap:
    parts = {
        "start": start,
        "data": train["data"] + test["data"],
        "image": train["image"] + test["image"],
        "text": train["total"] - train["data"] - train["image"],
        "test": test["total"] - test["data"] - test["image"],
    }
    return {"total": sum(parts.values()), **parts}


def request_for(
    job: Job, sizes: tuple[int, ...], threads: int, folder: Path, epochs: int
) -> dict[str, Any]:
    return {
        "data": str(folder / job.shape.folder),
        "weights": str(folder / "weights.pt"),
        "dataset": job.shape.dataset,
        "shots": job.shape.train,
        "pixels": sizes[1],
        "batch": job.batch,
        "epochs": epochs,
        "plain_steps": job.plain_steps,
        "plain_test": job.plain_test,
        "threads": threads,
        "fixed_views": False,
    }


def measure(job: Job, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs all paths of a job `args.rounds` times, by turns."""
    epochs = job.epochs if args.whole else max(2, round(job.epochs * args.share))
    test = tuple(
        n if args.whole else max(LEAST_TEST, round(n * args.share)) for n in job.shape.test
    )
    if not (folder / job.shape.folder).exists():
        write_data(folder / job.shape.folder, job.shape, test)
    common = request_for(job, args.sizes, args.threads, folder, epochs)
    rounds: list[dict[str, Any]] = []
    for number in range(args.rounds):

        def ours(method: str, store: str, number: int = number, **more: Any) -> Lap:
            with tempfile.TemporaryDirectory(dir=folder) as output:
                where = {"store": str(folder / f"{store}{number}"), "output": output}
                request = {**common, **where, **more, "method": method, "path": "ours"}
                return whole_ours(job, run(request), test)

        entry: dict[str, Any] = {}
        if not args.ours_only:
            request = {**common, "store": "", "output": str(folder), "method": job.method}
            entry["plain"] = whole_plain(job, run({**request, "path": "plain"}))
        entry["cold"] = ours(job.method, f"{job.name}-cold")
        if not (args.whole or args.cold_only):
            ours(OTHER[job.method], f"{job.name}-warm", fixed_views=True)
            entry["second"] = ours(job.method, f"{job.name}-warm", fixed_views=True)
        rounds.append(entry)
    return summary(job, rounds, epochs, test)


def summary(
    job: Job, rounds: list[dict[str, Any]], epochs: int, test: tuple[int, ...]
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "key": job.name,
        "done": {"epochs": epochs, "of": job.epochs, "test_images": list(test)},
        "rounds": rounds,
    }
    for path in rounds[0]:
        result[path] = {
            key: statistics.median(entry[path][key] for entry in rounds) for key in rounds[0][path]
        }
        if path != "plain" and "plain" in rounds[0]:
            ratios = [entry["plain"]["total"] / entry[path]["total"] for entry in rounds]
            result[f"{path}_ratio"] = statistics.median(ratios)
    if (epochs, test) == (job.epochs, job.shape.test):
        result["whole_seconds"] = result["cold"]["total"]
    return result


def show(result: dict[str, Any]) -> None:
    print(result["key"])
    for path in ("plain", "cold", "second"):
        if path in result:
            split = ", ".join(f"{part} {result[path][part]:.1f}" for part in PARTS)
            ratio = result.get(f"{path}_ratio")
            times = f", {ratio:.1f} times faster" if ratio else ""
            print(f"  {path:6} {result[path]['total']:9.1f} s  {split}{times}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    names = [job.name for job in JOBS]
    add("--jobs", nargs="+", choices=names, default=names, help="names, such as 'eurosat CoOp'")
    add("--rounds", type=int, default=3)
    add("--share", type=float, default=0.05, help="of ours' epochs and test images, then scaled")
    add("--whole", action="store_true", help="ours at full length, and not as a second method")
    add("--ours-only", action="store_true", help="without the plain path")
    add("--cold-only", action="store_true", help="not as a second method, which takes longest")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--quick", action="store_true", help="a tiny model and one round: does it run at all?")
    add("--json", help="file for the results; those of other jobs stay in it")
    add("--check", action="store_true", help="exit with 1 if a bar is missed")
    args = parser.parse_args()
    if args.quick and args.check:
        parser.error("bars are for models of the real size: leave out --quick or --check")
    args.sizes = SMALL if args.quick else REAL
    if args.quick:
        args.rounds, args.threads = 1, 1  # for models this small, threads cost time
    return args


def main() -> int:
    args = parse()
    report: dict[str, Any] = {**describe_run(), "threads": args.threads, "results": []}
    report["model"] = dict(zip(("embed", "pixels", "layers", "width", "patch"), args.sizes))
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder) / "weights.pt", args.sizes)
        for job in JOBS:
            if job.name in args.jobs:
                result = measure(job, args, Path(folder))
                add_result(report, result, args.json)
                show(result)
    bars = GPU_JOB_BARS if torch.cuda.is_available() else CPU_BARS
    return min(1, failures(report["results"], bars)) if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
