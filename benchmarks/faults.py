"""The long trial of what survives: kills at random moments, kills within each kind of writing,
one changed bit in each kind of file, and a sweep that is killed. Every run is resumed, and compared
to one that was left alone.

    python benchmarks/faults.py --kills 100 --out output/faults

CoOp, CoCoOp and the linear probe on the embedded default, on a CPU; an hour on two busy cores, less
where each part is started by itself (`--only`). Writes `benchmarks/results/faults.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch

from benchmarks.killing import (
    CASES,
    Case,
    die_in_writing,
    differences,
    finish,
    kill_after,
    let_interrupts_in,
    random_signal,
    start,
    traces,
    wait,
)
from benchmarks.machine import describe_run
from benchmarks.sweep_kills import start as start_sweep
from dassl.utils import write_json
from sweep.plan.request import Request

RESULT = ROOT / "benchmarks" / "results" / "faults.json"
WRITTEN = (
    *(r"progress\.pt", r"model\.pth\.tar-\d+", r"model-best\.pth\.tar", "checkpoint"),
    *(r"config\.yaml", r"results\.jsonl"),
)
PARTS = ("random_moments", "within_writing", "changed_bits", "sweep")
MOMENTS = ("half", "before", "after")
SWEEP = Request("base2new", trainers=("all",), datasets=("digits",), seeds=(1, 2), shots=(4,))
WORKERS = 4  # of the sweep


class Trial:
    """Runs in a folder, each compared to the one of its case that was left alone.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.root = out, out / "data"
        self.whole: dict[Case, dict[str, Any]] = {}
        self.seconds: dict[Case, float] = {}
        self.numbers = itertools.count()
        for case in CASES:
            folder = out / f"whole-{len(self.whole)}"
            finish(case, self.root, out / "warm" / folder.name)  # the dataset, the code's caches
            begin = time.perf_counter()
            finish(case, self.root, folder)
            self.seconds[case] = time.perf_counter() - begin
            self.whole[case] = traces(folder)

    def folder(self) -> Path:
        return self.out / f"broken-{next(self.numbers)}"

    def result(self, case: Case, folder: Path) -> list[str]:
        """Resumes a run to its end; returns what differs."""
        try:
            finish(case, self.root, folder)
        except AssertionError as error:
            return [str(error)]
        found = differences(self.whole[case], traces(folder))
        if not found:
            shutil.rmtree(folder)
        return found


def random_kills(trial: Trial, kills: int) -> dict[str, Any]:
    """Kills runs at random moments, some of them several times."""
    draw, wrong, signals = random.Random(0), [], Counter()
    done = late = 0
    while done < kills:
        case = CASES[done % len(CASES)]
        folder, arguments = trial.folder(), None
        for _ in range(draw.choice((1, 1, 2, 3))):
            flags = ("--resume", str(folder)) if (folder / "config.yaml").is_file() else ()
            arguments = case.arguments(trial.root, folder, *flags)
            signum = random_signal(draw)
            code = kill_after(draw.uniform(0.1, 1.0) * trial.seconds[case], signum, arguments)
            late += code == 0
            done += code != 0
            if code != 0:
                signals[signal.Signals(signum).name] += 1
        found = trial.result(case, folder)
        wrong += [f"{case.name} in {folder.name}: {what}" for what in found]
    return {"kills": done, "by_signal": dict(signals), "too_late": late, "different": wrong}


def kills_in_writing(trial: Trial) -> dict[str, Any]:
    """Kills runs within the writing of each kind of file."""
    kills, wrong = Counter(), []
    for case, name, moment in itertools.product(CASES, WRITTEN, MOMENTS):
        folder, count = trial.folder(), 2 if name.startswith("progress") else 1
        arguments = case.arguments(trial.root, folder)
        if wait(start(arguments, die_in_writing(name, count, moment))) == 0:
            continue  # it writes no such file so often
        kills[re.sub(r"\\d\+", "N", name).replace("\\", "")] += 1
        found = trial.result(case, folder)
        wrong += [f"{case.name}, {name} {moment} {count}: {what}" for what in found]
    return {"kills": kills.total(), "by_file": dict(kills), "different": wrong}


def changed_bits(trial: Trial, flips: int) -> dict[str, Any]:
    """Changes a bit of the newest state of a stopped run, which is then resumed."""
    draw, wrong, unnoticed, done = random.Random(1), [], 0, 0
    case = CASES[0]
    while done < flips:
        folder = trial.folder()
        seconds = draw.uniform(0.4, 0.9) * trial.seconds[case]
        kill_after(seconds, signal.SIGTERM, case.arguments(trial.root, folder))
        path = folder / "progress.pt"
        if not path.is_file() or not path.with_name("progress-before.pt").is_file():
            continue
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        wrong += trial.result(case, folder)
        if folder.is_dir():
            unnoticed += "is damaged" not in "".join(p.read_text() for p in folder.glob("log*"))
        done += 1
    return {"files": done, "unnoticed": unnoticed, "different": wrong}


def killed_sweep(out: Path, kills: int) -> dict[str, Any]:
    """Kills a sweep of four workers again and again; compares each run to the one left alone."""
    begin = time.perf_counter()
    _finish_sweep(out, "sweep-whole")
    seconds, draw, signals = time.perf_counter() - begin, random.Random(2), Counter()
    for _ in range(kills):
        process = start_sweep(SWEEP, out, "sweep-broken", WORKERS)
        time.sleep(draw.uniform(0.2, 0.7) * seconds)
        signum = random_signal(draw)
        os.kill(process.pid, signum)
        process.wait()
        signals[signal.Signals(signum).name] += 1
    _finish_sweep(out, "sweep-broken")
    runs = SWEEP.runs()
    folders = [[run.folder(out / name) for run in runs] for name in ("sweep-whole", "sweep-broken")]
    found = {
        run.title: differences(traces(whole), traces(broken))
        for run, whole, broken in zip(runs, *folders)
    }
    return {
        "kills": kills,
        "by_signal": dict(signals),
        "workers": WORKERS,
        "runs": len(runs),
        "different": [f"{title}: {what}" for title, kinds in found.items() for what in kinds],
    }


def _finish_sweep(out: Path, name: str) -> None:
    if start_sweep(SWEEP, out, name, WORKERS).wait() != 0:
        raise SystemExit(f"the sweep failed: see {out}/{name}.txt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="at random moments")
    parser.add_argument("--flips", type=int, default=20, help="changed bits")
    parser.add_argument("--sweep-kills", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--out", type=Path, default=Path("output/faults"))
    args = parser.parse_args()
    let_interrupts_in()
    torch.set_num_threads(1)  # before anything is forked
    out = args.out.absolute()
    out.mkdir(parents=True)
    trial = Trial(out) if {*args.only} - {"sweep"} else None
    counts = {
        "random_moments": ["--kills", str(args.kills)],
        "changed_bits": ["--flips", str(args.flips)],
        "sweep": ["--sweep-kills", str(args.sweep_kills)],
    }
    for part in args.only:
        command = ["python", "benchmarks/faults.py", "--only", part, *counts.get(part, ())]
        about = describe_run(command)
        found = {
            "random_moments": lambda: random_kills(trial, args.kills),
            "within_writing": lambda: kills_in_writing(trial),
            "changed_bits": lambda: changed_bits(trial, args.flips),
            "sweep": lambda: killed_sweep(out, args.sweep_kills),
        }[part]()
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
        write_json({**known, part: {**about, **found}}, RESULT)
        print(json.dumps({part: found}, indent=2), flush=True)


if __name__ == "__main__":
    main()
