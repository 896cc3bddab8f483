"""The command line: run, status, table, report, parse."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from dassl.data.workers import usable_cores
from dassl.utils import ConfigError, UnknownNameError
from dassl.utils.errors import not_one_of
from sweep.plan.arguments import add_request, request_of
from sweep.plan.data import missing_data, missing_text, without_missing
from sweep.plan.request import Request
from sweep.plan.run import Run
from sweep.report.show import add_parse, add_report, add_table
from sweep.work.estimate import duration
from sweep.work.folder import FAILED, FINISHED, RUNNING, WAITING, error_of, state_of
from sweep.work.local import LocalExecutor
from sweep.work.runner import Executor, Options, Sweep

GPU_MEMORY_PER_JOB = 8 * 2**30  # bytes; CoCoOp on 500 classes of ViT-B/16 peaks below this
SHOWN = 12  # runs that --dry-run lists


# --- run ------------------------------------------------------------------------------------------


def add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("run", help="carry out all runs of a protocol or a table")
    add_request(parser)
    add = parser.add_argument
    add("--root", default="data", help="folder that holds the data sets")
    add("--dry-run", action="store_true", help="show the plan and an estimate, do nothing")
    add("--jobs", type=int, default=0, help="runs at once; default: as memory and cores allow")
    add("--workers", type=int, default=None, help="processes that load images, in each run")
    add("--skip-missing", action="store_true", help="leave out data sets that are not there")
    add(
        "--error-analysis",
        action="store_true",
        help="also write predictions and confusions; finished runs are tested again for them",
    )
    add("--only", choices=("train", "test"), help="only trainings, or only evaluations")
    add("--shard", default="", help="I/N: the I-th of N parts of the plan, counted from 0")
    add("--executor", default="local", help="local, or ray (a cluster; needs `pip install ray`)")
    add("--ray-address", default=None, help="of a Ray cluster; default: started here")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Carries out a sweep; returns 1 if a run failed."""
    request = request_of(args, args.what)
    runs, root = part_of(request.runs(), args), Path(args.root)
    if args.dry_run:
        missing = missing_data((one.dataset for one in runs), root)
        print(missing_text(runs, missing, root) or "All data sets are there.")
    else:
        runs = without_missing(runs, root, args.skip_missing)
    jobs = args.jobs if args.jobs > 0 else default_jobs()
    extra = () if args.workers is None else ("DATALOADER.NUM_WORKERS", str(args.workers))
    output = args.output.absolute()
    root = str(root.expanduser().absolute())
    options = Options(output, root, jobs, args.per_epoch, extra, args.error_analysis)
    sweep = Sweep(runs, options)
    sweep.look()
    print(plan_text(sweep, jobs), flush=True)
    if args.dry_run:
        return 0
    request.save(output)
    sweep.carry_out(executor_of(args, jobs))
    print(sweep.summary(command_line()))
    print(f"Table: python -m sweep table {request.flags()} --output {args.output}")
    return 1 if sweep.failed else 0


def part_of(runs: tuple[Run, ...], args: argparse.Namespace) -> tuple[Run, ...]:
    """Returns what --only and --shard leave; a training and its evaluations stay together.

    Raises:
        ConfigError: --shard is no I/N.
    """
    if args.only:
        runs = tuple(r for r in runs if (r.source is None) == (args.only == "train"))
    if not args.shard:
        return runs
    index, _, count = args.shard.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ConfigError(f"--shard is {args.shard!r}; expected I/N with I from 0 to N - 1: 0/4")
    trainings = list(dict.fromkeys(r.source or r for r in runs))
    mine = set(trainings[int(index) :: int(count)])
    return tuple(r for r in runs if (r.source or r) in mine)


def gpu_places() -> list[str]:
    """Returns a GPU's number for each run that fits beside others; the GPUs take turns."""
    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    free = [torch.cuda.mem_get_info(i)[0] for i in range(len(names))]
    room = [min(4, amount // GPU_MEMORY_PER_JOB) for amount in free]
    turns = [name for turn in range(4) for name, runs in zip(names, room) if turn < runs]
    return turns or names[:1]


def default_jobs() -> int:
    """Returns how many runs fit at once: by the GPUs' free memory, or one per core."""
    return len(gpu_places()) or min(4, usable_cores())


def executor_of(args: argparse.Namespace, jobs: int) -> Executor:
    if args.executor == "ray":
        from sweep.work.ray_pool import RayExecutor

        return RayExecutor(jobs, args.ray_address)
    if args.executor != "local":
        raise UnknownNameError(not_one_of("--executor", args.executor, ("local", "ray")))
    return LocalExecutor(jobs, max(1, usable_cores() // jobs), gpu_places())


def plan_text(sweep: Sweep, jobs: int) -> str:
    """Returns the plan in a few lines: how many runs of what, and how long they take."""
    left = sweep.open_runs()
    tests = sum(run.source is not None for run in sweep.runs)
    lines = [
        f"{len(sweep.runs)} runs: {len(sweep.runs) - tests} that train (zero-shot: nothing) and "
        f"test on the same classes, {tests} that test what those have learned",
        f"{len(sweep.runs) - len(left)} are finished; {len(left)} to do, {jobs} at once",
    ]
    again = sum(run in sweep.to_test_again for run in left)
    if again:
        lines.append(f"{again} of these are finished, and only tested again for error analysis")
    lines += [f"  {run.title}" for run in left[:SHOWN]]
    if len(left) > SHOWN:
        lines.append(f"  ... and {len(left) - SHOWN} more")
    basis = "from the runs finished so far" if sweep.estimator.measured else "a guess for one GPU"
    if left:
        lines.append(f"Estimated time: {duration(sweep.time_left())} ({basis})")
    return "\n".join(lines)


def command_line() -> str:
    return " ".join(["python -m sweep", *sys.argv[1:]])


# --- status ---------------------------------------------------------------------------------------


def add_status(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("status", help="how far the sweeps in an output folder are")
    parser.add_argument("--output", type=Path, default=Path("output/sweep"))
    parser.set_defaults(command=status)


def status(args: argparse.Namespace) -> int:
    """Prints the state of every sweep that was started in an output folder."""
    paths = sorted((args.output / "sweeps").glob("*.json"))
    if not paths:
        print(f"No sweep was started in {args.output}.")
    for path in paths:
        request = Request.load(path)
        states = {run: state_of(run, args.output) for run in request.runs()}
        counts = {s: list(states.values()).count(s) for s in (FINISHED, RUNNING, FAILED, WAITING)}
        print(f"{request.flags()}")
        print("  " + ", ".join(f"{count} {state}" for state, count in counts.items()))
        for run, state in states.items():
            if state == RUNNING:
                print(f"  running: {run.title}")
            if state == FAILED:
                print(f"  failed: {run.title}: {error_of(run, args.output).splitlines()[-1]}")
    return 0


# --- all ------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sweep",
        description="Carries out the papers' protocols and prints their tables from the records.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_run, add_status, add_table, add_report, add_parse):
        add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    return command(args)
