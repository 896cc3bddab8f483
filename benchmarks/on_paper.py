"""What one H100 should need for whole jobs, from counts and rates: to be held against a GPU day.

    python benchmarks/on_paper.py --json benchmarks/results/on_paper.json

Counted here, without a GPU: a step's kernels, their operations and bytes
(`benchmarks/launches.py`). Measured here: what a core needs to read and transform an image, and the
start-up on a CPU (`benchmarks/results/whole_job_cpu.json`). Assumed: what stands in ASSUMED, each
with its source. The terms of a job are added up as if nothing overlapped. "Launched one by one" is
what steps take without a CUDA graph; "seeds together", what CoCoOp's would take if the three seeds
of a cell were three groups of one step.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.launches import META, Card, Kernel, count, meta_device_works
from benchmarks.loading import RECIPE, make_images
from benchmarks.machine import describe_run
from benchmarks.text_encoding import Bench, Case, class_names
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from dassl.utils import read_image, write_json
from dassl.utils.logger import quiet
from sweep.plan.recipes import BENCHMARK
from sweep.plan.run import Run
from sweep.plan.tables import table_named

SHEET = "NVIDIA's data sheet of the H100 SXM"
ASSUMED: dict[str, tuple[float, str]] = {
    "flops_per_s": (989e12, f"fp16 on tensor cores, dense: {SHEET} (1,979 with sparsity, halved)"),
    "bytes_per_s": (3.35e12, SHEET),
    "multiprocessors": (132, SHEET.replace("data sheet", "architecture paper")),
    "flops_share": (0.6, "assumed, of products that fill the card"),
    "bytes_share": (0.8, "assumed"),
    "shortest_kernel_s": (2e-6, "assumed, from one kernel's start to the next one's in a graph"),
    "launch_s": (4e-6, "assumed, for the host, without a graph; torch's own work may double it"),
    "context_s": (3.0, "assumed: CUDA's context, its libraries, and recording the graphs"),
    "training_processes": (8, "DATALOADER.NUM_WORKERS of the recipes"),
    "cores": (16, "assumed, all of which read test images"),
    "cache_bytes": (32 * 2**30, "assumed: decoded training images that fit are decoded once"),
}
CARD = Card(**{name: ASSUMED[name][0] for name in Card.__dataclass_fields__})
# Width and height of an image, rounded: the first two as in `whole_job_data`, the others by looks.
PIXELS = {
    "eurosat": (64, 64),
    "caltech101": (300, 225),
    "ucf101": (320, 240),
    "sun397": (1000, 750),
    "fgvc_aircraft": (1000, 750),
}
PHOTOGRAPH = (500, 375)
ENCODED_AT_ONCE = 256
TEST_BATCH = 100
IMAGES_TIMED = 24
OTHER_STEPS = ("steps, launched one by one", "steps, seeds together")
SEEDS = 3
TERMS = ("start", "views", "view features", "steps", "test images", "test features", "test text")


@dataclass(frozen=True)
class Job:
    """A training, or an evaluation of what has been trained (epochs 0), or both.

    Attributes:
        dataset: whose class names, and whose size of images.
        images: of an epoch; test: images tested, of which `stored` have their features kept.
        test_classes: of an evaluation; None: those of the training.
        n_ctx: None: the paper's.
    """

    method: str
    dataset: str
    n_cls: int
    batch: int = 1
    images: int = 0
    epochs: int = 0
    test: int = 0
    stored: bool = False
    n_ctx: int | None = None

    @property
    def case(self) -> Case:
        return Case(
            "step", self.method, self.n_cls, self.batch, n_ctx=self.n_ctx, dataset=self.dataset
        )

    @property
    def steps(self) -> int:
        return self.images // self.batch * self.epochs


# --- counted --------------------------------------------------------------------------------------


@cache
def bench() -> Bench:
    return Bench(META, "fp16", class_names())


@cache
def counted(case: Case) -> tuple[Kernel, ...]:
    """Returns the kernels of a training step (part "step", images already encoded), of a test
    batch's text ("test") or of an image batch ("image")."""
    with meta_device_works(), quiet():
        model = bench().model(case)
        work = {"step": _step, "test": _test, "image": _image}[case.part](case, model)
        return tuple(count(work))


def _step(case: Case, model: nn.Module) -> Callable[[], None]:
    features = torch.empty(case.batch, bench().embed, device=META)
    label = torch.empty(case.batch, dtype=torch.long, device=META)
    optimizer = torch.optim.SGD(model.prompt_learner.parameters(), 0.002, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model.from_features(features), label).backward()
        optimizer.step()

    return step


def _test(case: Case, model: nn.Module) -> Callable[[], Any]:
    features = torch.empty(case.batch, bench().embed, device=META)
    model.eval()
    return torch.no_grad()(lambda: model.from_features(features))


def _image(case: Case, model: nn.Module) -> Callable[[], Any]:
    images = bench().images(case)
    return torch.no_grad()(lambda: model.encode_image(images))


def image_seconds() -> float:
    """Returns the card's seconds for an image, in batches as large as the project makes them."""
    case = Case("image", "CoOp", 5, ENCODED_AT_ONCE)
    return CARD.device_seconds(list(counted(case))) / ENCODED_AT_ONCE


# --- measured -------------------------------------------------------------------------------------


@cache
def core_seconds(width: int, height: int) -> dict[str, float]:
    """Returns what a core needs for an image: to decode it, for a view of it, for a test image."""
    cfg = get_cfg_default()
    cfg.merge_from_file(str(RECIPE))
    with tempfile.TemporaryDirectory() as folder, quiet():
        items = make_images(Path(folder), IMAGES_TIMED, width, height)
        images = [read_image(item.impath) for item in items]
        view, test = (build_transform(cfg, is_train=is_train) for is_train in (True, False))
        return {
            "decode": _median(lambda i: read_image(items[i].impath)),
            "view": _median(lambda i: view(images[i])),
            "test": _median(lambda i: test(read_image(items[i].impath))),
        }


def _median(work: Callable[[int], Any]) -> float:
    work(0)
    times = []
    for i in range(IMAGES_TIMED):
        start = time.thread_time()  # other programs take none of it
        work(i)
        times.append(time.thread_time() - start)
    return statistics.median(times)


@cache
def start_seconds() -> float:
    path = ROOT / "benchmarks/results/whole_job_cpu.json"
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    on_a_cpu = statistics.median(result["cold"]["start"] for result in results)
    return on_a_cpu + ASSUMED["context_s"][0]


# --- terms ----------------------------------------------------------------------------------------


def terms(job: Job) -> dict[str, float]:
    """Returns a job's seconds by term, and its steps launched one by one."""
    width, height = PIXELS.get(job.dataset, PHOTOGRAPH)
    core = core_seconds(width, height)
    views = job.images * job.epochs
    fits = job.images * width * height * 3 <= ASSUMED["cache_bytes"][0]
    decoded = job.images if fits else views
    found = dict.fromkeys((*TERMS, *OTHER_STEPS), 0.0)
    found["start"] = start_seconds()
    reading = decoded * core["decode"] + views * core["view"]
    found["views"] = reading / ASSUMED["training_processes"][0]
    found["view features"] = views * image_seconds()
    if job.steps:
        step = list(counted(job.case))
        found["steps"] = job.steps * CARD.device_seconds(step)
        one_by_one = max(found["steps"], job.steps * CARD.host_seconds(step))
        found |= {OTHER_STEPS[0]: one_by_one, OTHER_STEPS[1]: found["steps"]}
        if job.method == "CoCoOp":
            together = counted(replace(job.case, batch=SEEDS * job.batch))
            found[OTHER_STEPS[1]] = job.steps * CARD.device_seconds(list(together)) / SEEDS
    if job.test and not job.stored:
        found["test images"] = job.test * core["test"] / ASSUMED["cores"][0]
        found["test features"] = job.test * image_seconds()
    if job.test and job.method == "CoCoOp":
        case = Case("test", "CoCoOp", job.n_cls, TEST_BATCH, dataset=job.dataset)
        found["test text"] = job.test / TEST_BATCH * CARD.device_seconds(list(counted(case)))
    return found


def total(found: dict[str, float]) -> float:
    return sum(found[term] for term in TERMS)


def whole_jobs() -> dict[str, tuple[Job, ...]]:
    """Returns the jobs: what is trained, and what is tested after it."""
    return {
        "the homework: CoCoOp, EuroSAT base, batch 4, 100 epochs, both tests": (
            Job("CoCoOp", "eurosat", 5, 4, 80, 100, test=8100),
        ),
        "CoCoOp, ImageNet base, batch 1, 10 epochs": (Job("CoCoOp", "imagenet", 500, 1, 8000, 10),),
        "CoOp, ImageNet, 1,000 classes, batch 32, 50 epochs": (
            Job("CoOp", "imagenet", 1000, 32, 16000, 50),
        ),
        "the table: 154 runs": table_jobs(),
    }


@cache
def table_jobs() -> tuple[Job, ...]:
    """Returns the runs of CoCoOp's table 1; an image is encoded by the first run that tests it."""
    table = table_named("cocoop-1")
    runs = {run: None for cell in table.protocol.cells(table.setting) for run in cell.runs}
    seen: set[tuple[str, str]] = set()  # dataset and classes
    jobs = []
    for run in runs:
        kept = (run.dataset, run.classes)
        jobs.append(job_of(run, stored=kept in seen))
        seen.add(kept)
    return tuple(jobs)


def job_of(run: Run, stored: bool) -> Job:
    sizes = test_sizes()[BENCHMARK[run.dataset]]
    n_all = len(class_names()[run.dataset])
    n_base = -(-n_all // 2)
    n_cls = n_base if run.classes == "base" else n_all - n_base
    learns = run.trains or run.source is not None
    method = run.trainer if learns else "CLIP"
    job = Job(method, run.dataset, n_cls, test=sizes[run.classes], stored=stored, n_ctx=4)
    if not run.trains:
        return job
    batch = run.settings["DATALOADER"]["TRAIN_X"]["BATCH_SIZE"]
    images = n_cls * run.shots
    return Job(
        method, run.dataset, n_cls, batch, images, run.epochs, job.test, stored, n_ctx=job.n_ctx
    )


@cache
def test_sizes() -> dict[str, dict[str, int]]:
    """Returns the test images of base and new classes; half of all where no source counts them."""
    found: dict[str, dict[str, int]] = {}
    with (ROOT / "sweep/paper/dataset_facts.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["field"].startswith("test_size") and row["value"].isdigit():
                found.setdefault(row["dataset"], {})[row["field"]] = int(row["value"])
    sizes = {}
    for name, known in found.items():
        half = known["test_size"] // 2
        sizes[name] = {
            "base": known.get("test_size_base", half),
            "new": known.get("test_size_new", known["test_size"] - half),
        }
    return sizes


def estimate(jobs: tuple[Job, ...]) -> dict[str, float]:
    """Returns the seconds of jobs one after the other, by term, and what bounds four at once."""
    each = [terms(job) for job in jobs]
    found = {term: sum(one[term] for one in each) for term in each[0]}
    found["total"] = total(found)
    if len(jobs) > 1:
        on_card = ("view features", "steps", "test features", "test text")
        card = sum(found[term] for term in on_card)
        cores = found["views"] * ASSUMED["training_processes"][0] / ASSUMED["cores"][0]
        found["four at once"] = max(card, cores + found["test images"], found["total"] / 4)
    return found


def steps_counted() -> list[dict[str, Any]]:
    """Returns single steps: what they launch, and what the card and the host need for them."""
    with meta_device_works():
        with_images = Case("step", "CoCoOp", 5, 4)
        work = bench().works(with_images)["ours"]
        kernels = {"CoCoOp, 5 classes, batch 4, with its images": count(work)}
    cases = {
        "CoCoOp, 5 classes, batch 4": Case("step", "CoCoOp", 5, 4),
        "CoCoOp, 500 classes, batch 1": Case("step", "CoCoOp", 500, 1),
        "CoCoOp, 500 classes, three seeds of batch 1": Case("step", "CoCoOp", 500, SEEDS),
        "CoCoOp, 1,000 classes, batch 1": Case("step", "CoCoOp", 1000, 1),
        "CoOp, 5 classes, batch 32": Case("step", "CoOp", 5, 32),
        "CoOp, 1,000 classes, batch 32": Case("step", "CoOp", 1000, 32),
        "256 images, encoded": Case("image", "CoOp", 5, ENCODED_AT_ONCE),
    }
    kernels |= {name: list(counted(case)) for name, case in cases.items()}
    return [
        {
            "key": name,
            "kernels": len(those),
            "flops": sum(k.flops for k in those),
            "bytes": sum(k.bytes for k in those),
            "device_seconds": CARD.device_seconds(those),
            "host_seconds": CARD.host_seconds(those),
        }
        for name, those in kernels.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {**describe_run(device="cpu"), "assumed": ASSUMED}
    report["steps"] = steps_counted()
    report["jobs"] = {name: estimate(jobs) for name, jobs in whole_jobs().items()}
    sizes = sorted({*PIXELS.values(), PHOTOGRAPH})
    report["core_seconds"] = {f"{w}x{h}": core_seconds(w, h) for w, h in sizes}
    report["start_seconds"], report["image_seconds"] = start_seconds(), image_seconds()
    for name, found in report["jobs"].items():
        print(f"{name}: {found['total']:.0f} s")
        print("  " + ", ".join(f"{term} {seconds:.1f}" for term, seconds in found.items()))
    if args.json:
        write_json(report, args.json)


if __name__ == "__main__":
    main()
