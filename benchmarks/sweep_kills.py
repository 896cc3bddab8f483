"""Kills a sweep again and again, and compares what it ends with to one that was left alone.

    python benchmarks/sweep_kills.py --kills 5 --out output/kills

The base-to-new sweep on the embedded default: zero-shot, ensemble, linear probe, CoOp and CoCoOp,
three seeds. Writes `benchmarks/results/sweep_kills.json` and prints it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_run
from dassl.utils import write_json
from dassl.utils.results import read_records
from sweep.plan.request import Request
from sweep.work.folder import RunFolder

REQUEST = Request("base2new", trainers=("all",), datasets=("digits",))
JOBS = 2  # runs at once
RESULT = ROOT / "benchmarks" / "results" / "sweep_kills.json"


def start(request: Request, out: Path, name: str, jobs: int) -> subprocess.Popen:
    """Starts a sweep in a process of its own; what it says goes to `<out>/<name>.txt`."""
    place = ["--root", str(out / "data"), "--output", str(out / name), "--jobs", str(jobs)]
    command = [sys.executable, "-m", "sweep", "run", *request.flags().split(), *place]
    with (out / f"{name}.txt").open("a") as log:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def finished(output: Path) -> dict[str, float]:
    """Returns title → accuracy of the runs that are finished."""
    records = {run.title: RunFolder(run, output).record() for run in REQUEST.runs()}
    return {title: r["metrics"]["accuracy"] for title, r in records.items() if r is not None}


def whole(out: Path) -> float:
    """Returns the seconds that the sweep takes when it is left alone."""
    begin = time.perf_counter()
    if start(REQUEST, out, "whole", JOBS).wait() != 0:
        raise SystemExit(f"the sweep failed: see {out}/whole.txt")
    return time.perf_counter() - begin


def broken(out: Path, kills: int, seconds: float) -> list[dict]:
    """Kills the sweep `kills` times at random moments, then lets it end; returns what was there."""
    draw, history = random.Random(0), []
    for _ in range(kills):
        process = start(REQUEST, out, "broken", JOBS)
        time.sleep(draw.uniform(0.1, 0.45) * seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = finished(out / "broken")
        halves = [r for r in REQUEST.runs() if r.title not in done]
        halves = [r for r in halves if RunFolder(r, out / "broken").can_resume()]
        history.append({"finished": len(done), "to_resume": len(halves)})
    if start(REQUEST, out, "broken", JOBS).wait() != 0:
        raise SystemExit(f"the sweep failed: see {out}/broken.txt")
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("output/kills"))
    args = parser.parse_args()
    out = args.out.absolute()
    out.mkdir(parents=True)
    seconds = whole(out)
    history = broken(out, args.kills, seconds)
    runs = REQUEST.runs()
    counts = [len(list(read_records(r.folder(out / "broken") / "results.jsonl"))) for r in runs]
    command = ["python", "benchmarks/sweep_kills.py", "--kills", str(args.kills)]
    result = {
        **describe_run(command),
        "runs": len(runs),
        "seconds_left_alone": round(seconds, 1),
        "after_each_kill": history,
        "same_accuracies": finished(out / "whole") == finished(out / "broken"),
        "runs_evaluated_more_than_once": sum(count > 1 for count in counts),
    }
    write_json(result, RESULT)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
