"""The command line: run, status, table, report, parse."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from logging import INFO, WARNING
from pathlib import Path

from dassl.command import command
from dassl.data.image_cache import cache_bytes
from dassl.data.workers import usable_cores
from dassl.engine.wandb_writer import INSTALL, is_installed
from dassl.utils import ConfigError, UnknownNameError, UserError
from dassl.utils.errors import not_one_of
from dassl.utils.logger import get_logger, talking
from dassl.utils.parsers import Parser
from dassl.utils.text import counted, visible
from datasets.readers.roots import make_default_root, require_root
from encoders.openai import fetch_weights
from sweep.plan.arguments import add_request, request_of
from sweep.plan.data import missing_data, missing_text, without_missing
from sweep.plan.request import kept_requests
from sweep.plan.run import Run
from sweep.report.show import add_parse, add_report, add_table
from sweep.work.basis import data_stay
from sweep.work.execute import Job
from sweep.work.folder import FAILED, FINISHED, RUNNING, WAITING, RunFolder
from sweep.work.gpus import Places, find_places
from sweep.work.local import LocalExecutor
from sweep.work.own_data import prepare_own_data
from sweep.work.runner import EVERY, Executor, Sweep

EXAMPLES = {
    "run base2new --trainers all --datasets digits": "no download, two minutes",
    "run cocoop-1 --root data --dry-run": "a paper's table: the plan",
    "status": "how far it is",
    "report": "one page with everything",
}
CODES = {0: "all finished", 1: "some runs failed"}
logger = get_logger(__name__)

SHOWN = 12  # runs that --dry-run lists


class OutputError(UserError):
    """The output folder cannot be read or written."""


# --- run ------------------------------------------------------------------------------------------


def add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "run",
        help="do all runs of a protocol or a table",
        text="Does all runs of a protocol or a table; what is finished is not done again.",
        examples={
            "base2new --trainers all --datasets digits": "no download, two minutes",
            "fewshot --datasets folder --root ~/birds --shots 16": "images of your own",
            "cocoop-1 --root data --dry-run": "a paper's table: the plan",
            "base2new --devices 0,1 --seeds 1 --opts OPTIM.MAX_EPOCH 5": "two GPUs",
        },
        exit_codes=CODES,
    )
    add_request(parser)
    add = parser.add_argument
    add("--root", default="data", help="folder that holds the datasets")
    add("--dry-run", action="store_true", help="show the plan and an estimate, do nothing")
    add("--jobs", type=int, default=0, help="runs at once; default: as memory and cores allow")
    add("--devices", help="GPUs to use: numbers or UUIDs with commas between them, or cpu")
    add("--workers", type=int, help="processes that load images, in each run; changes no number")
    add("--skip-missing", action="store_true", help="leave out datasets that are not there")
    add(
        "--error-analysis",
        action="store_true",
        help="also write predictions and confusions; finished runs are tested again for them",
    )
    add("--only", choices=("train", "test"), help="only trainings, or only evaluations")
    add("--shard", default="", help="I/N: the I-th of N parts of the plan, counted from 0")
    add("--wandb", default="", metavar="PROJECT", help="report to it on Weights & Biases as well")
    add("--executor", default="local", help="local, or ray (a cluster; needs `pip install ray`)")
    add("--ray-address", default=None, help="of a Ray cluster; default: started here")
    add(
        "--every",
        type=float,
        default=EVERY,
        metavar="SECONDS",
        help=f"say what is running so often; 0: never; default: {EVERY:.0f}",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Runs a sweep; returns 1 if a run failed."""
    request = request_of(args, args.what)
    runs, root = part_of(request.runs(), args), Path(args.root)
    if args.dry_run:
        missing = missing_data((one.dataset for one in runs), root)
        print(missing_text(runs, missing, root) or "All datasets are there.")
    else:
        make_default_root(root)
        require_root(root)
        runs = without_missing(runs, root, args.skip_missing)
        said = prepare_own_data(runs, str(root.expanduser().absolute()), args.output)
        for line in said:
            logger.log(WARNING if line.startswith("Note:") else INFO, visible(line))
    places = places_for(args)
    sweep = sweep_of(runs, args, len(places.names))
    sweep.find_finished()
    if args.dry_run:
        print(plan_text(sweep))
        return 0
    logger.info(plan_text(sweep))
    for name in weights_of(sweep.open_runs()):
        fetch_weights(name)
    request.save(args.output)
    sweep.run(executor_of(args, sweep.at_once, places))
    print(visible(sweep.summary(command_line())))
    where = shlex.quote(str(args.output))
    print(visible(f"Table:  {command('sweep')} table --output {where} {request.flags()}"))
    print(visible(f"Report: {command('sweep')} report --output {where}"))
    return 1 if sweep.failed else 0


def weights_of(runs: Sequence[Run]) -> list[str]:
    """Returns the names of the backbones that runs load, those from files of one's own left out."""
    backbones = [run.settings["MODEL"]["BACKBONE"] for run in runs]
    return list(dict.fromkeys(one["NAME"] for one in backbones if not one["PATH"]))


def places_for(args: argparse.Namespace) -> Places:
    """Returns where --devices and USE_CUDA let runs be done.

    Raises:
        ConfigError: what --devices asks for cannot be had.
    """
    if args.executor == "ray" and args.devices is not None:
        raise ConfigError(
            f"--devices is {args.devices!r}, but Ray deals out the GPUs itself: leave out "
            "--devices, or --executor ray"
        )
    if args.jobs < 0:
        raise ConfigError(f"--jobs {args.jobs}: expected 1 or more, or leave it out")
    settings = dict(zip(args.opts[::2], args.opts[1::2]))
    use_cuda = settings.get("USE_CUDA", "True") != "False"
    if args.executor == "ray" and args.jobs > 0:
        use_cuda = False  # other machines' GPUs count, not this one's
    return find_places(args.devices, use_cuda)


def sweep_of(runs: Sequence[Run], args: argparse.Namespace, fit: int = 1) -> Sweep:
    """Returns the sweep that --jobs, --workers, --error-analysis and the folders ask for.

    Args:
        runs: the plan.
        args: of the command line.
        fit: how many runs are done at once unless --jobs says so.

    Raises:
        ConfigError: --workers is no number of processes, or --wandb lacks its package.
    """
    extra: tuple[str, ...] = ()
    if args.workers is not None:
        if args.workers < 1:
            raise ConfigError(
                f"--workers {args.workers}: expected 1 or more processes; to draw as without any, "
                "which is another run, add --opts DATALOADER.NUM_WORKERS 0"
            )
        extra = ("DATALOADER.PROCESSES", str(args.workers))
    at_once = args.jobs if args.jobs > 0 else fit
    if args.executor == "local":
        extra += _share_of_the_machine(args.opts, at_once, given=extra)
    output, root = args.output.absolute(), str(Path(args.root).expanduser().absolute())
    if args.wandb and not is_installed():
        raise ConfigError(f"--wandb needs the package wandb: {INSTALL}")
    how = (args.per_epoch, extra, args.error_analysis, args.wandb)
    jobs = [Job(run, output, root, *how) for run in runs]
    if args.every < 0:
        raise ConfigError(f"--every {args.every:g}: expected seconds, 0 or more")
    return Sweep(jobs, at_once, args.every)


def _share_of_the_machine(
    opts: Sequence[str], at_once: int, given: Sequence[str]
) -> tuple[str, ...]:
    """Returns settings with which `at_once` runs share cores and memory; no number depends on them.

    Args:
        opts: of --opts; what is set there stays.
        at_once: number of runs.
        given: what other flags say.
    """
    shares = {
        "DATALOADER.PROCESSES": max(1, usable_cores() // at_once),
        "DATALOADER.CACHE_MB": cache_bytes(-1) // at_once // 2**20,
    }
    kept = {*opts[::2], *given[::2]}
    return tuple(str(x) for pair in shares.items() if pair[0] not in kept for x in pair)


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


def executor_of(args: argparse.Namespace, jobs: int, places: Places) -> Executor:
    if args.executor == "ray":
        from sweep.work.ray_pool import RayExecutor

        return RayExecutor(jobs, args.ray_address)
    if args.executor != "local":
        raise UnknownNameError(not_one_of("--executor", args.executor, ("local", "ray")))
    return LocalExecutor(jobs, max(1, usable_cores() // jobs), places.for_jobs(jobs))


def plan_text(sweep: Sweep) -> str:
    """Returns the plan in a few lines: how many runs of what, and how long they take."""
    runs, left = list(sweep.jobs), sweep.open_runs()
    tests = sum(run.source is not None for run in runs)
    done, train = len(runs) - len(left), len(runs) - tests
    lines = [
        f"{counted(len(runs), 'run')}: {train} to train (zero-shot: nothing) and test on the same "
        f"classes, {tests} to test what those have learned",
        f"{done} {'is' if done == 1 else 'are'} finished; {len(left)} to do, {sweep.at_once} at "
        "once",
    ]
    again = sum(run in sweep.to_test_again for run in left)
    if again:
        are = "is" if again == 1 else "are"
        lines.append(f"{again} of these {are} finished, and only tested again for error analysis")
    lines += [f"  {visible(run.title)}" for run in left[:SHOWN]]
    if len(left) > SHOWN:
        lines.append(f"  ... and {len(left) - SHOWN} more")
    if left:
        time_left = sweep.time_left()
        until = " until the first run of each kind is done"
        basis = ", from the runs finished so far" if time_left.known else until
        lines.append(f"Estimate: {time_left}{basis}")
    return "\n".join(lines)


def command_line() -> str:
    return f"{command('sweep')} {shlex.join(sys.argv[1:])}"


# --- status ---------------------------------------------------------------------------------------


def add_status(commands: argparse._SubParsersAction) -> None:
    text = "how far the sweeps in an output folder are, and where their logs lie"
    examples = {"": "of output/sweep", "--output output/demo": ""}
    parser = commands.add_parser("status", help=text, text=text, examples=examples)
    parser.add_argument("--output", type=Path, default=Path("output/sweep"))
    parser.set_defaults(command=status)


def status(args: argparse.Namespace) -> int:
    """Prints the state of every sweep that was started in an output folder."""
    requests = kept_requests(args.output)
    if not requests:
        print(f"No sweep was started in {visible(str(args.output))}.")
    for request in requests:
        folders = [RunFolder(run, args.output) for run in request.runs()]
        with data_stay():
            states = [folder.state() for folder in folders]
        print(visible(request.flags()))
        kinds = (FINISHED, RUNNING, FAILED, WAITING)
        print("  " + ", ".join(f"{states.count(state)} {state}" for state in kinds))
        for folder, state in zip(folders, states):
            if state == RUNNING:
                print(visible(f"  running: {folder.run.title}: {folder.path / 'log.txt'}"))
            if state == FAILED:
                print(visible(f"  failed: {folder.run.title}: {folder.error().splitlines()[-1]}"))
    return 0


# --- all ------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    text = "Runs the papers' protocols and prints their tables from the records."
    parser = Parser(command("sweep"), text, EXAMPLES, CODES, talks=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_run, add_status, add_table, add_report, add_parse):
        add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    do: Callable[[argparse.Namespace], int] = args.command
    try:
        with talking(args.quiet, args.verbose):
            return do(args)
    except UserError:
        raise
    except OSError as error:
        raise OutputError(
            f"{error.filename or args.output}: {error.strerror or error}; what is finished stays "
            "as it is: name another --output, or mend this and type the same again"
        ) from None
