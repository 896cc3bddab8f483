"""The four protocols: which runs give the numbers of one cell.

few-shot        train on k images a class, test on all classes (CoOp section 4.1)
base2new        train on the first half of the classes, test on both halves (CoCoOp section 4.1)
cross-dataset   train on ImageNet, test on ten other datasets (CoCoOp section 4.2)
domain          train on ImageNet, test on its four variants (CoOp section 4.2, CoCoOp section 4.3)

The demo's is base2new on the embedded default, with a training on all classes beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sweep.plan.recipes import (
    BENCHMARK,
    CLIP,
    COCOOP,
    COOP_WORDS,
    EMBEDDED,
    LINEAR_PROBE,
    SEEDS,
    SHOTS,
    VARIANTS,
    Method,
    coop,
)
from sweep.plan.run import Run, evaluation_of


@dataclass(frozen=True)
class Cell:
    """One number of a table: the runs whose mean it is, one a seed.

    Attributes:
        method: row.
        dataset: file in configs/datasets.
        part: "base", "new", "all", "source" or "target"; "whole": all, after training on all.
        shots: training images per class of the method's training; 0: none.
        backbone: of all runs.
        runs: one a seed.
    """

    method: Method
    dataset: str
    part: str
    shots: int
    backbone: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Setting:
    """What one protocol is asked to do; the defaults are the papers'.

    Attributes:
        own_clip: the embedded dataset has the embedded CLIP, whatever `backbone` others have.
    """

    methods: tuple[Method, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS
    shots: tuple[int, ...] = (16,)
    backbone: str = "ViT-B/16"
    source: str = "imagenet"
    parts: tuple[str, ...] = ("base", "new", "all")
    opts: tuple[str, ...] = ()
    per_epoch: bool = False
    own_clip: bool = True

    def training(self, method: Method, dataset: str, shots: int, classes: str, seed: int) -> Run:
        """Returns the run that trains on a dataset (or, with nothing to learn, tests on it)."""
        backbone = "tiny" if self.own_clip and dataset == EMBEDDED else self.backbone
        recipe, opts = method.recipe_for(backbone, dataset, shots)
        shots = shots if method.learns else 0
        opts = (*opts, *self.opts)
        return Run(method.trainer, dataset, recipe, shots, classes, seed, opts)

    def seeds_of(self, method: Method) -> tuple[int, ...]:
        return self.seeds if method.learns else (1,)


def _few_shot(setting: Setting) -> Iterator[Cell]:
    for method in setting.methods:
        for dataset in setting.datasets:
            for shots in setting.shots if method.learns else (0,):
                runs = [
                    setting.training(method, dataset, shots or 16, "all", seed)
                    for seed in setting.seeds_of(method)
                ]
                yield Cell(method, dataset, "all", shots, setting.backbone, tuple(runs))


def _base_to_new(setting: Setting) -> Iterator[Cell]:
    shots = setting.shots[0]
    for method in setting.methods:
        for dataset in setting.datasets:
            for part in setting.parts if method.reads_new_classes else ("base",):
                runs = [
                    _tested_on(setting, method, dataset, shots, part, seed)
                    for seed in setting.seeds_of(method)
                ]
                yield Cell(method, dataset, part, shots, setting.backbone, tuple(runs))


def _tested_on(
    setting: Setting, method: Method, dataset: str, shots: int, part: str, seed: int
) -> Run:
    if not method.learns:
        return setting.training(method, dataset, shots, part, seed)
    trained = setting.training(method, dataset, shots, "base", seed)
    return trained if part == "base" else evaluation_of(trained, classes=part)


def _demo(setting: Setting) -> Iterator[Cell]:
    yield from _base_to_new(replace(setting, parts=("base", "new")))
    for cell in _few_shot(setting):
        yield replace(cell, part="whole", shots=setting.shots[0])


def _transfer(setting: Setting) -> Iterator[Cell]:
    shots = setting.shots[0]
    for method in setting.methods:
        for dataset in (setting.source, *setting.datasets):
            runs = []
            for seed in setting.seeds_of(method):
                trained = setting.training(method, setting.source, shots, "all", seed)
                if dataset != setting.source:
                    other = replace(trained, dataset=dataset)
                    trained = evaluation_of(trained, dataset=dataset) if method.learns else other
                runs.append(trained)
            part = "source" if dataset == setting.source else "target"
            yield Cell(method, dataset, part, shots, setting.backbone, tuple(runs))


def new_classes_per_epoch(cells: Sequence[Cell]) -> list[Run]:
    """Returns evaluations on the new classes after each epoch but the last of all trainings."""
    runs = []
    for cell in cells:
        for run in cell.runs if cell.part == "new" else ():
            if run.source is not None:
                runs += [replace(run, epoch=epoch) for epoch in range(1, run.source.epochs)]
    return runs


@dataclass(frozen=True)
class Protocol:
    """A name, what it is, its setting in the papers, and the function that makes its cells."""

    name: str
    about: str
    default: Setting
    cells: Callable[[Setting], Iterator[Cell]]


_ALL = tuple(BENCHMARK)
_LEARNED = (COOP_WORDS, COCOOP)

FEW_SHOT = Protocol(
    "fewshot",
    "train on 1, 2, 4, 8 and 16 images a class, test on all classes",
    Setting((CLIP, LINEAR_PROBE, coop()), _ALL, shots=SHOTS, backbone="RN50"),
    _few_shot,
)
BASE_TO_NEW = Protocol(
    "base2new",
    "train on half of the classes, test on these, on the others, and on all together",
    Setting((CLIP, *_LEARNED), _ALL),
    _base_to_new,
)
DEMO = Protocol(
    "demo",
    "the embedded default: from base to new classes, and trained on all; no download",
    Setting(
        (CLIP, *_LEARNED),
        (EMBEDDED,),
        parts=("base", "new", "whole"),
    ),
    _demo,
)
CROSS_DATASET = Protocol(
    "crossdataset",
    "train on ImageNet, test on ten other datasets",
    Setting(_LEARNED, _ALL[1:]),
    _transfer,
)
DOMAIN = Protocol(
    "domain",
    "train on ImageNet, test on its four variants",
    Setting((CLIP, *_LEARNED), tuple(VARIANTS)),
    _transfer,
)
