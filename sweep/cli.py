"""The command line: run, status, table, report, parse."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from dassl.utils import ConfigError, UnknownNameError
from dassl.utils.errors import not_one_of
from sweep.cost import duration
from sweep.data import without_missing
from sweep.local import LocalExecutor
from sweep.request import Request
from sweep.run import Run
from sweep.runner import Executor, Options, Sweep
from sweep.state import FAILED, FINISHED, RUNNING, WAITING, error_of, state_of
from sweep.tables import TABLES

GPU_MEMORY_PER_JOB = 8 * 2**30  # bytes; CoCoOp on 500 classes of ViT-B/16 peaks below this
SHOWN = 12  # runs that --dry-run lists


def add_request(parser: argparse.ArgumentParser, many: bool = False) -> None:
    """Adds the arguments that decide which runs there are."""
    add = parser.add_argument
    names = ", ".join(TABLES)
    add("what", nargs="*" if many else None, help=f"a protocol or a table of the papers: {names}")
    add(
        "--trainers",
        nargs="+",
        default=[],
        help="registered trainers, or all; default: the papers'",
    )
    add("--datasets", nargs="+", default=[], help="files in configs/datasets; default: the papers'")
    add("--seeds", nargs="+", type=int, default=[], help="default: 1 2 3")
    add("--shots", nargs="+", type=int, default=[], help="training images a class; default: 16")
    add("--ctx", nargs="+", type=int, default=[], help="few-shot CoOp: context vectors, M")
    add("--position", nargs="+", default=[], help="few-shot CoOp: class name's place (end, middle)")
    add("--csc", nargs="+", default=[], help="few-shot CoOp: class-specific context (True, False)")
    add("--backbone", default="", help="RN50, RN101, ViT-B/32 or ViT-B/16")
    add("--recipe", default="", help="config file in configs/trainers, such as CoOp/vit_b16")
    add("--source", default="", help="transfer: data set to train on; default: imagenet")
    add(
        "--per-epoch", action="store_true", help="base2new: also test each epoch on the new classes"
    )
    add("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for all runs; last")
    add("--output", type=Path, default=Path("output/sweep"), help="where all results go")


def request_of(args: argparse.Namespace, what: str) -> Request:
    """Returns the request of parsed arguments.

    Raises:
        ConfigError: --csc is neither True nor False.
    """
    switch = {"true": True, "yes": True, "false": False, "no": False}
    for value in args.csc:
        if value.lower() not in switch:
            raise ConfigError(not_one_of("--csc", value, ("True", "False")))
    lists = {key: tuple(getattr(args, key)) for key in ("trainers", "datasets", "seeds", "shots")}
    return Request(
        what,
        **lists,
        contexts=tuple(args.ctx),
        positions=tuple(args.position),
        csc=tuple(switch[value.lower()] for value in args.csc),
        backbone=args.backbone,
        recipe=args.recipe,
        source=args.source,
        opts=tuple(args.opts),
        per_epoch=args.per_epoch,
    )


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
    add("--only", choices=("train", "test"), help="only trainings, or only evaluations")
    add("--shard", default="", help="I/N: the I-th of N parts of the plan, counted from 0")
    add("--executor", default="local", help="local, or ray (a cluster; needs `pip install ray`)")
    add("--ray-address", default=None, help="of a Ray cluster; default: started here")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Carries out a sweep; returns 1 if a run failed."""
    request = request_of(args, args.what)
    runs = part_of(without_missing(request.runs(), Path(args.root), args.skip_missing), args)
    jobs = args.jobs if args.jobs > 0 else default_jobs()
    extra = () if args.workers is None else ("DATALOADER.NUM_WORKERS", str(args.workers))
    output = args.output.absolute()
    options = Options(output, str(Path(args.root).expanduser().absolute()), jobs, extra=extra)
    options = Options(**{**vars(options), "keep_epochs": args.per_epoch})
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


def default_jobs() -> int:
    """Returns how many runs fit at once: by the GPUs' free memory, or one per core."""
    if not torch.cuda.is_available():
        return min(4, len(os.sched_getaffinity(0)))
    free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    return max(1, sum(min(4, amount // GPU_MEMORY_PER_JOB) for amount in free))


def executor_of(args: argparse.Namespace, jobs: int) -> Executor:
    if args.executor == "ray":
        from sweep.ray_pool import RayExecutor

        return RayExecutor(jobs, args.ray_address)
    if args.executor != "local":
        raise UnknownNameError(not_one_of("--executor", args.executor, ("local", "ray")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    cores = len(os.sched_getaffinity(0))
    return LocalExecutor(jobs, max(1, cores // jobs), gpus if torch.cuda.is_available() else ())


def plan_text(sweep: Sweep, jobs: int) -> str:
    """Returns the plan in a few lines: how many runs of what, and how long they take."""
    left = sweep.open_runs()
    tests = sum(run.source is not None for run in sweep.runs)
    lines = [
        f"{len(sweep.runs)} runs: {len(sweep.runs) - tests} trainings (zero-shot: none), each with "
        f"an evaluation of its own, and {tests} evaluations more of what they learned",
        f"{len(sweep.runs) - len(left)} are finished; {len(left)} to do, {jobs} at once",
    ]
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
    for add in (add_run, add_status):
        add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    return command(args)
