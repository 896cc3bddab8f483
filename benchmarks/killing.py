"""Runs that are killed and resumed, and what is left of them. Processes are forked from one that
has imported everything, so that a trial takes a second or two.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import train
from dassl.utils import load_checkpoint
from dassl.utils.cli import run_cli
from dassl.utils.logger import log_files
from dassl.utils.results import read_records

CLOCKS = ("time", "seconds", "commit", "images_encoded")  # of a record: differ between two runs


@dataclass(frozen=True)
class Case:
    """One training, as arguments of `train.py`."""

    trainer: str
    recipe: str
    opts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        values = [v for k, v in zip(self.opts[::2], self.opts[1::2]) if k != "OPTIM.MAX_EPOCH"]
        return " ".join([self.trainer, *values])

    def arguments(self, root: Path, output: Path, *flags: str) -> list[str]:
        return [
            *("--root", str(root), "--trainer", self.trainer, "--seed", "1"),
            *("--dataset-config-file", str(ROOT / "configs/datasets/digits.yaml")),
            *("--config-file", str(ROOT / f"configs/trainers/{self.recipe}.yaml")),
            *("--output-dir", str(output), *flags),
            *("DATASET.NUM_SHOTS", "4", "TRAIN.CHECKPOINT_SECONDS", "0.05"),
            *("TRAIN.PRINT_FREQ", "1", *self.opts),
        ]


BATCHES = ("DATALOADER.TRAIN_X.BATCH_SIZE", "4")
CASES = (
    Case("CoOp", "CoOp/tiny", (*BATCHES, "OPTIM.MAX_EPOCH", "20")),
    Case("CoOp", "CoOp/tiny", ("TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", "12")),
    Case("CoOp", "CoOp/tiny", (*BATCHES, "DATALOADER.NUM_WORKERS", "2", "OPTIM.MAX_EPOCH", "10")),
    Case("CoCoOp", "CoCoOp/tiny", ("OPTIM.MAX_EPOCH", "4", "TRAIN.CHECKPOINT_FREQ", "2")),
    Case("LinearProbe", "CoOp/tiny", ("MODEL.FEATURES.STORE_MB", "0")),
)


def start(arguments: list[str], before: Callable[[], Any] | None = None) -> int:
    """Starts `train.py` in a process of its own; returns its id.

    Args:
        arguments: of `train.py`.
        before: called in the new process first.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        let_interrupts_in()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.setsid()
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if before is not None:
            before()
        code = run_cli(lambda: train.main(train.build_parser().parse_args(arguments)))
    finally:
        os._exit(code)


def let_interrupts_in() -> None:
    """Has SIGINT interrupt, also where a shell started us in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait(pid: int) -> int:
    """Returns the exit code of a process; the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finish(case: Case, root: Path, output: Path) -> None:
    """Continues a run, or begins it if nothing is there, to its end."""
    flags = ("--resume", str(output)) if (output / "config.yaml").is_file() else ()
    code = wait(start(case.arguments(root, output, *flags)))
    assert code == 0, f"{case.name}: exit code {code}, see {output}"


def kill_after(seconds: float, signum: int, arguments: list[str]) -> int:
    """Starts a run and kills it; returns how it ended."""
    pid = start(arguments)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
    return wait(pid)


# --- within the writing of a file -----------------------------------------------------------------


def die_in_writing(name: str, count: int, moment: str) -> Callable[[], None]:
    """Returns what makes a process kill itself around the `count`-th writing of a kind of file.

    Args:
        name: a regular expression for the file's name.
        count: from 1.
        moment: "half": only a part is written; "before" and "after" it takes its place.
    """
    left = [count]

    def is_it(path: object) -> bool:
        if not re.fullmatch(name, Path(str(path)).name):
            return False
        left[0] -= 1
        return left[0] == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def install() -> None:
        replace, write = os.replace, os.write

        def killing_replace(source: Any, target: Any) -> None:
            if is_it(target):
                if moment == "half":
                    os.truncate(source, os.path.getsize(source) // 2)
                if moment != "after":
                    die()
                replace(source, target)
                die()
            replace(source, target)

        def killing_write(descriptor: int, data: bytes) -> int:
            if is_it(os.readlink(f"/proc/self/fd/{descriptor}")):
                if moment != "before":
                    write(descriptor, data if moment == "after" else data[: len(data) // 2])
                die()
            return write(descriptor, data)

        os.replace, os.write = killing_replace, killing_write

    return install


# --- what is left ---------------------------------------------------------------------------------


def traces(folder: Path) -> dict[str, Any]:
    """Returns all that must be the same in two runs, whatever happened to them."""
    return {
        "files": sorted({_name(path, folder) for path in _files(folder)}),
        "checkpoints": {p.name: _content(p) for p in sorted(folder.glob("*/model*"))},
        "pointers": [p.read_text() for p in sorted(folder.glob("*/checkpoint"))],
        "records": [
            {k: v for k, v in record.items() if k not in CLOCKS}
            for record in read_records(folder / "results.jsonl")
        ],
        "scalars": _scalars(folder),
        "log": _lines(folder),
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the kinds of traces that differ."""
    return [kind for kind in one if one[kind] != other[kind]]


def _files(folder: Path) -> Iterator[Path]:
    """Yields all files but those of an attempt that a sweep has put aside."""
    aside = {folder / ".before", folder / ".unfinished"}
    return (p for p in folder.rglob("*") if p.is_file() and not aside & {*p.parents})


def _name(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return re.sub(r"log\.txt.*", "log.txt", re.sub(r"tfevents\..*", "tfevents", name))


def _content(path: Path) -> Any:
    content = load_checkpoint(str(path))
    del content["progress"]["files"]  # logs tell times
    return _plain(content)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), str(value.dtype), value.numpy().tobytes())
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("tensorboard/*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = value.tensor.float_val[0] if value.tensor.float_val else None
                found.setdefault(value.tag, []).append((event.step, number))
    return {tag: sorted(values) for tag, values in found.items()}


def _lines(folder: Path) -> list[str]:
    """Returns the lines of training and of results, in all logs, without clocks."""
    wanted = r"epoch \[|\* |=> result|Regularization|Accuracy on"
    lines = [
        re.sub(r"(time|data) \S+ \(\S+\)|eta .*", "#", line)
        for path in log_files(folder)
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if re.match(wanted, line)]


def random_signal(draw: random.Random) -> int:
    return draw.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
