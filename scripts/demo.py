"""Zero-shot CLIP, CoOp and CoCoOp on the embedded default, three seeds: a table and a chart."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dassl.start  # noqa: F401  # isort: skip - first: it checks Python and its packages

from tabulate import tabulate

from dassl.command import command
from dassl.utils import UserError
from dassl.utils.cli import run_cli
from dassl.utils.logger import get_logger, talking
from dassl.utils.parsers import Parser
from dassl.utils.text import counted
from sweep.plan.protocols import DEMO, Cell
from sweep.plan.recipes import EMBEDDED, SEEDS, Method
from sweep.plan.request import Request, in_order
from sweep.plan.table import Row
from sweep.report.formats import ours
from sweep.report.plots import bar_figure
from sweep.report.records import records_of, samples_of
from sweep.report.stats import Value, harmonic, value
from sweep.work.execute import Job
from sweep.work.gpus import find_places
from sweep.work.local import LocalExecutor
from sweep.work.runner import Sweep

logger = get_logger("sweep")  # not __name__, which is __main__ for a command

EXAMPLES = {"": "two minutes on two cores", "--seeds 1 --output-dir output/first": "a third of it"}
METHODS = DEMO.default.methods
PARTS = {
    "base": "base classes\n(trained on)",
    "new": "new classes\n(never seen)",
    "whole": "all ten\n(trained on all)",
}


def plan(seeds: Sequence[int]) -> list[Cell]:
    """Returns the numbers of the table, each with the runs that give it."""
    return request(seeds).cells()


def request(seeds: Sequence[int]) -> Request:
    """Returns what the demo asks of a sweep."""
    return Request(DEMO.name, seeds=tuple(dict.fromkeys(seeds)))


def run(cells: Sequence[Cell], root: Path, output: Path) -> None:
    """Does the runs that are not finished.

    Raises:
        UserError: some failed.
    """
    output, data = output.absolute(), str(root.expanduser().absolute())
    runs = in_order([run for cell in cells for run in cell.runs])
    places = find_places("cpu")  # where the demo never waits for anybody
    sweep = Sweep([Job(run, output, data) for run in runs], len(places.names))
    sweep.find_finished()
    done = len(runs) - len(sweep.open_runs())
    logger.info(f"{counted(len(runs), 'run')}, {done} finished before, {sweep.at_once} at once")
    # The model is so small that a second thread only gets in the way.
    sweep.run(LocalExecutor(sweep.at_once, 1, places.names))
    if sweep.failed:
        raise UserError(sweep.summary(f"{command('demo')} {shlex.join(sys.argv[1:])}"))


def rows_of(cells: Sequence[Cell], output: Path) -> list[Row]:
    """Returns a row a method, made from the run records alone."""
    rows: dict[Method, dict[str, Value]] = {method: {} for method in METHODS}
    for cell in cells:
        samples = samples_of(records_of(cell, output.absolute()))
        rows[cell.method][cell.part] = value(samples, len(cell.runs))
    return [Row((method.label,), values) for method, values in rows.items()]


def table(rows: Sequence[Row]) -> str:
    """Base, new, H (of the means, as in the papers) and, trained apart, all ten classes."""
    lines = []
    for row in rows:
        base, new, whole = (row.values[part] for part in PARTS)
        h = f"{harmonic(base.mean, new.mean):.1f}"
        lines.append([*row.labels, ours(base, 1), ours(new, 1), h, ours(whole, 1)])
    return tabulate(
        lines,
        ["", "base", "new", "H", "all ten"],
        colalign=("left", "right", "right", "right", "right"),
        disable_numparse=True,
    )


def chart(rows: Sequence[Row], path: Path) -> None:
    """Saves grouped bars with the seeds' standard deviation."""
    title = "Handwritten digits, 16 shots, mean and std over seeds"
    bar_figure(rows, PARTS, title).savefig(path, dpi=150)


def build_parser() -> argparse.ArgumentParser:
    text = (
        f"{__doc__}\n\nThe runs are those of `{command('sweep')} run demo`, and `status` and "
        "`report` tell of them.\nStarted again, it repeats nothing that is finished."
    )
    parser = Parser(command("demo"), text, EXAMPLES)
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder for datasets")
    parser.add_argument("--output-dir", type=Path, default=Path("output/demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    return parser


def main() -> None:
    args = build_parser().parse_args()
    with talking(args.quiet, args.verbose):
        show(args)


def show(args: argparse.Namespace) -> None:
    """Does the runs, and prints the table, where everything is, and what to type next."""
    start = time.monotonic()
    cells, output = plan(args.seeds), args.output_dir
    request(args.seeds).save(output)
    run(cells, args.root, output)
    rows = rows_of(cells, output)
    chart(rows, output / "chart.png")
    print(f"\n{table(rows)}\n")
    print("base: first five classes, 16 shots each; new: the other five, never trained on;")
    print("H: harmonic mean of the two means; all ten: trained and tested on all. Accuracy in %.")
    folder = f"{EMBEDDED}/<shots>/<method>/<recipe>/seed<k>"
    print(f"\nChart            {output / 'chart.png'}")
    print(f"Logs             {output}/<part>/{folder}/log.txt")
    print(f"Run records      {output}/<part>/{folder}/results.jsonl")
    print(f"Learned prompts  {output}/train_<classes>/{folder}/prompt_learner/")
    print(f"Took {time.monotonic() - start:.0f} s\n\n{next_steps(cells, args.root, output)}")


def next_steps(cells: Sequence[Cell], root: Path, output: Path) -> str:
    """Returns the commands that go on from here."""
    learned = next(c.runs[0] for c in cells if c.part == "whole" and c.method.trainer == "CoOp")
    python = "python"
    if sys.executable != shutil.which(python):  # of demo.sh's .venv, which is not activated
        python = os.path.relpath(sys.executable)
    sweep, predict = command("sweep", python), command("predict", python)
    return (
        f"Next, a page with all of it:  {sweep} report --output {output}\n"
        f"Classify pictures:            {predict} {learned.folder(output)} "
        f"{root / EMBEDDED / 'images/3_three'}\n"
        f"Images of your own:           {sweep} run fewshot --datasets folder "
        "--root FOLDER --shots 16 --backbone ViT-B/16"
    )


if __name__ == "__main__":
    sys.exit(run_cli(main))
