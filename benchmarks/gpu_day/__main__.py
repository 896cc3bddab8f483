"""Runs the parts of a GPU day one after the other, and says which bars hold.

    bash benchmarks/gpu_day.sh                                  # all of it: less than 25 minutes
    bash benchmarks/gpu_day.sh --minutes 9 --out DIR            # what is worth most comes first
    bash benchmarks/gpu_day.sh --parts jobs,image,sweep
    bash benchmarks/gpu_day.sh --device cpu                     # small sizes: does it run?

Each part writes benchmarks/results/gpu/PART.json as it goes (with --device cpu: output/gpu_day), so
that what a part has measured before it fails or is stopped is kept. A part that fails does not stop
the others. The exit code is 0 if every part was done and every bar holds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bars import Verdict, judge
from benchmarks.gpu_day import figures
from benchmarks.gpu_day.plan import MINUTES_ON_A_CPU, PARTS, Part, named

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/gpu"
SECONDS_TO_ANSWER = 300
LEAST_SECONDS = 20.0  # with less left, a part is not begun
# What the parts import beside Python's own, and what to ask pip for.
NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "yacs": "yacs",
    "encoders.openai": "clip-anytorch==2.6.0 ftfy wcwidth regex 'setuptools<82'",
    "tabulate": "tabulate",
    "tqdm": "tqdm",
    "filelock": "filelock",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "pytest": "pytest",
    "xdist": "pytest-xdist",
    "hypothesis": "hypothesis",
}
FIND_MISSING = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name}\t{type(error).__name__}: {error}".splitlines()[0])
"""
# Not imported here: what they import may come from --wheels.
FIND_CARD = """
import json
from dassl.utils.device import nvidia_smi
from sweep.work.gpus import first_gpu

answer = nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader") or "unknown"
print(json.dumps({"card": first_gpu().name, "driver": answer.split()[0]}))
"""


@dataclass
class Outcome:
    """What became of a part."""

    part: Part
    word: str  # "pass", or why not
    seconds: float = 0.0
    verdicts: list[Verdict] = field(default_factory=list)


class Day:
    """Runs parts, each in a process of its own.

    Args:
        device: "cuda" or "cpu".
        results: folder of the JSON files.
        logs: folder of what the parts print.
        minutes: for all parts together; 0: as each may take.
        facts: added to each file, such as the driver.
        commit: see `with_commit`.
        environment: of the parts.
    """

    def __init__(
        self,
        device: str,
        results: Path,
        logs: Path,
        minutes: float,
        facts: dict[str, Any],
        commit: str,
        environment: dict[str, str],
    ) -> None:
        self.device, self.results, self.logs = device, results, logs
        self.facts, self.commit, self.environment = facts, commit, environment
        self.until = time.monotonic() + 60 * minutes if minutes else float("inf")
        results.mkdir(parents=True, exist_ok=True)
        logs.mkdir(parents=True, exist_ok=True)

    def run(self, part: Part) -> Outcome:
        """Runs a part until it ends or its time is over, and judges what it has written."""
        limit = 60 * (part.minutes if self.device == "cuda" else MINUTES_ON_A_CPU)
        left = self.until - time.monotonic()
        if left < LEAST_SECONDS:
            return Outcome(part, "no time left")
        path = self.results / f"{part.name}.json"
        path.unlink(missing_ok=True)
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        arguments = [*part.arguments(self.device), "--json", str(shown)]
        start = time.monotonic()
        code = self._process([sys.executable, *arguments], part, min(limit, left))
        seconds = time.monotonic() - start
        words = {0: "pass", None: "stopped: no time left" if left < limit else "over its time"}
        outcome = Outcome(part, words.get(code, f"failed, exit code {code}"), seconds)
        self._judge(outcome, path)
        self._complete(outcome, path, ["python", *arguments])
        return outcome

    def _process(self, command: list[str], part: Part, limit: float) -> int | None:
        """Returns the exit code; None if the process and all that it started were killed."""
        with (self.logs / f"{part.name}.txt").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                return None
            finally:  # a part's own processes must not outlive it, however it or we end
                with suppress(ProcessLookupError):  # nobody is left
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _judge(self, outcome: Outcome, path: Path) -> None:
        results = _report(path)["results"]
        if not results and outcome.word == "pass":
            outcome.word = "failed, nothing was measured"
        if self.device == "cpu":
            return  # bars and figures are a GPU's
        outcome.verdicts = judge(results, figures.FIGURES[outcome.part.name])
        if outcome.word == "pass" and any(_missed(v) for v in outcome.verdicts):
            outcome.word = "bars missed"

    def _complete(self, outcome: Outcome, path: Path, command: list[str]) -> None:
        report = with_commit(_report(path), self.commit)
        report |= {**self.facts, "part": outcome.part.name}
        report |= {"verdict": outcome.word, "seconds": outcome.seconds}
        report["command"] = shlex.join(command)
        if outcome.word.startswith("failed"):
            log = self.logs / f"{outcome.part.name}.txt"
            report["end_of_log"] = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        path.write_text(json.dumps(report, indent=4) + "\n", encoding="utf-8")


def _report(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it failed before it had anything to write
        return {"results": []}


def with_commit(report: dict[str, Any], given: str) -> dict[str, Any]:
    """Returns a report with the commit that was given, there and in each result, where git knows
    no clean one: in a copy of a working tree, it knows none, or its own last and "dirty"."""
    known = report.get("commit")
    if not given or (known and not known.endswith("-dirty")):
        return report
    named = {"commit": given, "commit_by_git": known}
    return {**report, **named, "results": [{**result, **named} for result in report["results"]]}


def _missed(verdict: Verdict) -> bool:
    return verdict.bar.has_limit and verdict.word != "pass"


def summary(outcomes: list[Outcome], chosen: tuple[Part, ...]) -> str:
    """Returns what became of the parts, the bars that are missed, and what to type for the rest."""
    lines = [f"{o.part.name:8} {o.seconds:6.0f} s  {o.word:24} {o.part.what}" for o in outcomes]
    for outcome in outcomes:
        for v in outcome.verdicts:
            lines.append(f"  {v.word:12} {v.bar.text}: {v.shown} ({v.bar.limit})")
    done = {o.part.name for o in outcomes if o.word == "pass"}
    rest = [part.name for part in chosen if part.name not in done]
    lines.append(f"{len(done)} of {len(chosen)} parts pass.")
    if rest:
        lines.append(f"The rest: bash benchmarks/gpu_day.sh --parts {','.join(rest)}")
    return "\n".join(lines)


def bring_home(out: Path, text: str, *folders: Path) -> None:
    """Writes the summary, and all results and logs in one archive, to be unpacked in the root."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.txt").write_text(text + "\n", encoding="utf-8")
    files = {p for f in folders for pattern in ("*.json", "*.txt") for p in f.glob(pattern)}
    with tarfile.open(out / "gpu_day.tar.gz", "w:gz") as archive:
        for path in sorted(files):
            inside = path.is_relative_to(ROOT)
            archive.add(path, path.relative_to(ROOT) if inside else f"gpu_day/{path.name}")


def environment_for(device: str, wheels: Path | None, folder: Path) -> dict[str, str]:
    """Returns the parts' environment: packages from wheels, a cache of their own."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    if wheels:
        site = folder / "site"
        files = [str(path) for path in sorted(wheels.glob("*.whl"))]
        if not files:
            raise SystemExit(f"--wheels {wheels}: no file there ends in .whl")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*install, "--target", str(site), *files], check=True)
        paths.insert(0, str(site))
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


def require_all(device: str, environment: dict[str, str]) -> None:
    """Ends the program unless packages and device are there; says what to type."""
    command = [sys.executable, "-W", "ignore", "-c", FIND_MISSING, *NEEDED]
    done = _asked(command, environment)
    missing = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    if missing:
        found = "\n".join(f"  {name}: {error}" for name, error in missing.items())
        wanted = " ".join(NEEDED[name] for name in missing)
        raise SystemExit(
            f"Packages cannot be imported:\n{found}\nWhere there is a network, type\n"
            f"  python -m pip download --no-deps -d wheels {wanted}\n"
            "and bring the folder along: bash benchmarks/gpu_day.sh --wheels wheels"
        )
    if device == "cuda":
        ask = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
        done = _asked(ask, environment)
        if done.stdout.strip() != "True":
            raise SystemExit("torch sees no GPU; --device cpu shows whether this program runs")


def _asked(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS_TO_ANSWER,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(
            f"importing the packages, or asking for the GPU, took over {SECONDS_TO_ANSWER} s: does "
            "nvidia-smi answer?"
        ) from None


def facts_of(device: str, environment: dict[str, str]) -> dict[str, Any]:
    """Returns the card that the parts compute on, and the driver, as nvidia-smi knows them."""
    if device != "cuda":
        return {"device": device}
    done = _asked([sys.executable, "-W", "ignore", "-c", FIND_CARD], environment)
    try:
        return {"device": device, **json.loads(done.stdout.splitlines()[-1])}
    except (ValueError, IndexError):
        error = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return {"device": device, "card": "unknown", "driver": f"unknown ({error})"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bash benchmarks/gpu_day.sh", description=__doc__.splitlines()[0]
    )
    names = ",".join(part.name for part in PARTS)
    add = parser.add_argument
    add("--device", default="cuda", choices=("cuda", "cpu"))
    add("--parts", default=names, help=f"of {names}; what is worth most comes first")
    add("--minutes", type=float, default=0, help="for all parts together; what is left is said")
    add("--out", type=Path, help="folder for two files to take home: a summary, and an archive")
    add("--wheels", type=Path, help="folder of packages to use, where there is no network")
    add("--commit", default="", help="of this code, where git cannot tell")
    add("--work", type=Path, default=ROOT / "output/gpu_day", help="folder for logs")
    args = parser.parse_args()
    try:
        args.chosen = named(args.parts)
    except ValueError as error:
        parser.error(str(error))
    return args


def main() -> int:
    args = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="gpu-day-") as folder:
        environment = environment_for(args.device, args.wheels, Path(folder))
        require_all(args.device, environment)
        facts = facts_of(args.device, environment)
        results, logs = RESULTS if args.device == "cuda" else args.work, args.work / "logs"
        day = Day(args.device, results, logs, args.minutes, facts, args.commit, environment)
        outcomes: list[Outcome] = []
        for part in args.chosen:
            outcomes.append(day.run(part))
            print(f"{part.name}: {outcomes[-1].word} ({outcomes[-1].seconds:.0f} s)", flush=True)
            if args.out:  # after each part: the machine may be taken away
                bring_home(args.out, summary(outcomes, args.chosen), results, logs)
    print(summary(outcomes, args.chosen))
    return int(any(outcome.word != "pass" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
