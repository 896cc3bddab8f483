"""Start-up of runs that follow each other in one process, as on a worker of a sweep.

    python benchmarks/start_up.py --check

From the call of `train.main` to the first batch, and whatever else is prepared once a run, later:
weights that are folded, their digest. Reading data is not start-up: building the data set and its
loaders is shown beside it. The first run loads CLIP, the others find it loaded. The model has the
size of ViT-B/16, with random weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import train
from benchmarks.machine import describe_run
from benchmarks.whole_job_data import REAL, SHAPES, SMALL, write_data, write_weights
from dassl.engine import SimpleTrainer
from dassl.utils import write_json
from dassl.utils.logger import quiet
from encoders.image import ImageEncoder
from encoders.text import TextEncoder
from features import keys
from trainers.clip_trainer import CLIPTrainer

SHAPE = SHAPES["eurosat"]
BAR = 1.0  # seconds, of any run but the first
COCOOP = "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"
RUNS = (  # method, config file, seed
    ("CoOp", "CoOp/vit_b16", 1),
    ("CoOp", "CoOp/vit_b16", 1),
    ("CoOp", "CoOp/vit_b16", 2),
    ("CoCoOp", COCOOP, 2),
    ("ZeroshotCLIP", "CoOp/vit_b16", 1),
)
DATA = "data"
PARTS = {  # a run's preparations: where their time goes, and who does it
    DATA: ((SimpleTrainer, "build_data_loader"),),
    "CLIP": ((CLIPTrainer, "load_clip"),),
    "folding": ((ImageEncoder, "_fold"), (TextEncoder, "_fold")),
    "digest": ((keys, "_weights_digest"),),
    "check of the settings": ((train, "setup_cfg"),),
}
WORK = ((SimpleTrainer, "train"), (SimpleTrainer, "test"))  # start-up ends where these begin


class Watch:
    """Times the preparations of a run, wherever they happen."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.begun = 0.0  # when work began
        self.later = 0.0  # seconds of preparations since
        for part, owners in PARTS.items():
            for owner, name in owners:
                self._wrap(owner, name, lambda start, part=part: self._add(part, start))
        for owner, name in WORK:
            self._wrap(owner, name, before=self._begin)

    def start_up(self, run: Callable[[], Any]) -> dict[str, float]:
        """Returns the seconds of start-up, those of each part, and those beside it, of the data."""
        self.parts, self.begun, self.later = dict.fromkeys(PARTS, 0.0), 0.0, 0.0
        start = time.perf_counter()
        run()
        data = self.parts.pop(DATA)
        total = self.begun - start - data + self.later
        parts = {**self.parts, "rest": total - sum(self.parts.values())}
        return {"seconds": total, DATA: data, "parts": parts}

    def _add(self, part: str, start: float) -> None:
        passed = time.perf_counter() - start
        self.parts[part] += passed
        self.later += passed if self.begun else 0.0

    def _begin(self) -> None:
        self.begun = self.begun or time.perf_counter()

    @staticmethod
    def _wrap(
        owner: Any,
        name: str,
        after: Callable[[float], None] = lambda start: None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            before()
            start = time.perf_counter()
            result = original(*args, **kwargs)
            after(start)
            return result

        setattr(owner, name, watched)


def arguments(folder: Path, number: int, pixels: int) -> Namespace:
    method, recipe, seed = RUNS[number]
    options = {
        "DATASET.NUM_SHOTS": 1,
        "INPUT.SIZE": str((pixels, pixels)),
        "MODEL.FEATURES.FOLDER": str(folder / "features"),
        "DATALOADER.NUM_WORKERS": 0,
    }
    return Namespace(
        root=str(folder / "data"),
        seed=seed,
        output_dir=str(folder / f"run{number}"),
        trainer=method,
        backbone_path=str(folder / "weights.pt"),
        dataset_config_file=str(ROOT / f"configs/datasets/{SHAPE.dataset}.yaml"),
        config_file=str(ROOT / f"configs/trainers/{recipe}.yaml"),
        epoch=1,
        subsample_classes="base",
        opts=[str(x) for pair in options.items() for x in pair],
    )


def measure(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Runs all RUNS in this process and shows what each start-up took."""
    watch, results = Watch(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder / "weights.pt", sizes)
        write_data(folder / "data", SHAPE, (20, 20))
        for number, (method, _, seed) in enumerate(RUNS):
            args = arguments(folder, number, sizes[1])
            with quiet():
                result = watch.start_up(lambda args=args: train.main(args))
            results.append({"run": number + 1, "method": method, "seed": seed, **result})
            show(results[-1])
    return results


def show(result: dict[str, Any]) -> None:
    split = ", ".join(f"{part} {seconds:.2f}" for part, seconds in result["parts"].items())
    name = f"run {result['run']}, {result['method']}, seed {result['seed']}"
    beside = f"beside {result[DATA]:.2f} s of data"
    print(f"{name:29} {result['seconds']:6.2f} s ({split}), {beside}", flush=True)


def check(results: list[dict[str, Any]]) -> int:
    """Prints the bar with pass or fail; returns how many fail or were not measured."""
    warm = [result["seconds"] for result in results[1:]]
    passed = bool(warm) and max(warm) < BAR
    shown = f"{max(warm):.2f}" if warm else "not measured"
    verdict = "pass" if passed else "FAIL"
    print(f"{verdict:12} start-up of any run but the first, seconds: {shown} (below {BAR})")
    return int(not passed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--threads", type=int, default=torch.get_num_threads())
    add("--quick", action="store_true", help="a tiny model: does it run at all?")
    add("--json", help="file for the results")
    add("--check", action="store_true", help="exit with 1 if the bar is missed")
    return parser.parse_args()


def main() -> int:
    args = parse()
    torch.set_num_threads(args.threads)
    sizes = SMALL if args.quick else REAL
    report = {**describe_run(), "threads": args.threads, "results": measure(sizes)}
    if args.json:
        write_json(report, args.json)
    return check(report["results"]) if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
