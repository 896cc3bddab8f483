"""Folders → what their runs say; runs that differ in nothing but the seed are one setting."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from dassl.engine.identity import flat
from dassl.engine.run_folder import CONFIG
from dassl.utils import MissingFileError, UserError, read_json
from dassl.utils.logger import get_logger
from dassl.utils.results import accuracy_of, is_of, read_records
from dassl.utils.text import counted
from explore.predictions import Predictions, read_predictions
from prompts.run import Run, read_run
from sweep.plan.recipes import STANDARD, paper_name
from sweep.plan.request import dataset_names
from sweep.plan.run import ROOT, settings_but_seed

logger = get_logger(__name__)

RECORDS, PREDICTIONS = "results.jsonl", "predictions.csv"
TESTED, ZEROSHOT = "tested", "zeroshot"  # folders inside a run's, which `needs.py` has made
OWN_DATA = "Folder"
# In this order tests and methods stand on the page; others follow.
PARTS = ("base", "new", "all", "all, after base", "all, after others")
METHODS = tuple(STANDARD)
# What differs between the runs of one row of a table of base and new classes.
_NOT_OF_THE_SETTING = ("DATASET.SUBSAMPLE_CLASSES", "DATASET.NAME")


@dataclass(eq=False)
class Seen:
    """A run as its folder shows it.

    Attributes:
        run: configuration and identity.
        record: of its last finished test; {}: there is none.
        method: its name, the same as in the tables of a sweep.
        name: method and, where others have the same, what tells it apart.
        root: folder that holds the datasets now; "": where the run found them.
        beside: the part that it stands in, of a method that learns nothing; "": its own.
    """

    run: Run
    record: dict[str, Any]
    name: str = ""
    root: str = ""
    beside: str = ""

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def trainer(self) -> str:
        return self.run.cfg.TRAINER.NAME

    @property
    def method(self) -> str:
        return STANDARD[self.trainer].label if self.trainer in STANDARD else self.trainer

    @property
    def learns(self) -> bool:
        return STANDARD[self.trainer].learns if self.trainer in STANDARD else True

    @property
    def dataset(self) -> str:
        """The dataset's name; of own data, that of its folder."""
        data = self.run.cfg.DATASET
        if data.NAME != OWN_DATA:
            return paper_name(_config_names().get(data.NAME, data.NAME))
        return Path(data.CSV).stem if data.CSV else Path(data.ROOT).name

    @property
    def own_data(self) -> bool:
        return self.run.cfg.DATASET.NAME == OWN_DATA

    @property
    def classes(self) -> str:
        return self.run.cfg.DATASET.SUBSAMPLE_CLASSES

    @property
    def seed(self) -> int:
        """Of what it learned, or of the training whose weights it tested."""
        return self.record.get("seed", self.run.cfg.SEED)

    @property
    def accuracy(self) -> float | None:
        return accuracy_of(self.record) if self.record else None

    @property
    def trained_here(self) -> bool:
        return any(self.folder.glob("*/model*.pth.tar*"))

    @property
    def images(self) -> Path:
        """The folder that the paths in predictions.csv start from."""
        return Path(self.root or self.run.cfg.DATASET.ROOT).expanduser()

    @property
    def part(self) -> str:
        """The classes it was tested on, and what it was trained on, if not on them or on base."""
        if not self.learns:
            return self.beside or self.classes
        ended_here = self.record.get("after_training", self.trained_here)
        if self.classes == "all" and not ended_here:
            return f"all, after {self._source or 'others'}"
        if self.classes == "new" and ended_here:
            return "new, after new"
        return self.classes

    @property
    def _source(self) -> str:
        """The classes that a sweep's run was trained on; "": not known."""
        path = self.folder / "run.json"
        try:
            return str(read_json(path)["run"]["source"]["classes"]) if path.is_file() else ""
        except (UserError, TypeError, KeyError):
            return ""

    @property
    def test(self) -> tuple[str, str]:
        """What it was tested on: runs of one test stand in one table."""
        return self.dataset, self.part

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands among the runs on its dataset."""
        method = METHODS.index(self.trainer) if self.trainer in METHODS else len(METHODS)
        return PARTS.index(self.part) if self.part in PARTS else len(PARTS), method, self.seed

    @property
    def title(self) -> str:
        seed = f", seed {self.seed}" if self.seed >= 0 and self.learns else ""
        return f"{self.name}, {where(self.test)}{seed}"

    @cached_property
    def setting(self) -> dict[str, Any]:
        """All that determines its numbers, but seed, classes and dataset: full key → value."""
        settings = flat(settings_but_seed(self.run.cfg))
        trained = self.record.get("trained")  # elsewhere: what this configuration need not know
        if isinstance(trained, dict):
            settings |= {k: v for k, v in trained.items() if k in settings}
        return {k: v for k, v in settings.items() if k not in _NOT_OF_THE_SETTING}

    @cached_property
    def predictions(self) -> Predictions | None:
        """What it predicted for each image; None: it was not asked to write that."""
        for place in (self.folder, self.folder / TESTED):
            if (place / PREDICTIONS).is_file():
                found = read_predictions(place / PREDICTIONS)
                if self._is_of_the_record(found):
                    return found or None
                logger.warning(
                    f"Note: {place / PREDICTIONS} is passed over: it is of another test than the "
                    f"last of {RECORDS}, or not whole"
                )
        return None

    def _is_of_the_record(self, found: Predictions) -> bool:
        total, correct = self.record.get("total"), self.record.get("correct")
        if not total or found.path.parent != self.folder:  # made anew, elsewhere perhaps
            return not total or len(found) == total
        return (len(found), int(found.right.sum())) == (total, correct)


def find_runs(folders: Sequence[str], root: str = "") -> list[Seen]:
    """Returns the runs in and below folders, by dataset, classes, method and seed.

    Args:
        folders: of runs, or with runs anywhere below, such as a sweep's.
        root: where the images are now; "": where the run found them.

    Raises:
        MissingFileError: a folder is not there, or holds no run.
    """
    seen: dict[Path, Seen] = {}
    for given in folders:
        place = Path(given).expanduser()
        if not place.is_dir():
            raise MissingFileError(f"there is no folder {place}: give a run's, or a sweep's")
        found = _run_folders(place)
        if not found:
            raise MissingFileError(
                f"{place} holds no run, nor does any folder below: {CONFIG} is nowhere; give the "
                "--output-dir of a training, or the --output of a sweep"
            )
        for folder in found:
            if folder.resolve() not in seen and (one := _seen(folder, root, folder == place)):
                seen[folder.resolve()] = one
    for one in seen.values():
        if not one.learns:
            one.beside = _beside(one, list(seen.values()))
    datasets = list(dict.fromkeys(one.dataset for one in seen.values()))
    runs = sorted(seen.values(), key=lambda one: (datasets.index(one.dataset), *one.place))
    if not any(one.record or one.trained_here for one in runs):
        raise MissingFileError(
            f"{', '.join(folders)}: no run has finished anything yet; explore when one has"
        )
    _name(runs)
    return runs


def where(test: tuple[str, str]) -> str:
    """Returns what was tested, in words."""
    dataset, part = test
    classes, _, trained = part.partition(", ")
    return f"{dataset}, {classes} classes" + (f", {trained}" if trained else "")


def _beside(one: Seen, runs: Sequence[Seen]) -> str:
    """Returns the part of runs that learned elsewhere, where no others stand in its own."""
    parts = [
        r.part for r in runs if r.learns and (r.dataset, r.classes) == (one.dataset, one.classes)
    ]
    return "" if one.classes in parts else next(iter(parts), "")


@cache
def _config_names() -> dict[str, str]:
    """Returns registered names of datasets → their files in configs/datasets, as sweeps say."""
    names = {}
    for stem in dataset_names():
        content = yaml.safe_load((ROOT / "configs" / "datasets" / f"{stem}.yaml").read_text())
        names[content["DATASET"]["NAME"]] = stem
    return names


def _run_folders(place: Path) -> list[Path]:
    found = []
    for folder, below, files in os.walk(place):
        below[:] = sorted(name for name in below if not name.startswith(".") and name != TESTED)
        if CONFIG in files and (RECORDS in files or Path(folder) == place):
            found.append(Path(folder))
    return found


def _seen(folder: Path, root: str, asked_for: bool) -> Seen | None:
    try:
        run = read_run(folder)
    except UserError as error:
        if asked_for:
            raise
        logger.warning(f"Note: {folder} is left out: {error}")
        return None
    return Seen(run, _record(folder / RECORDS, run.cfg), root=root)


def _record(path: Path, cfg: CfgNode) -> dict[str, Any]:
    records = list(read_records(path)) if path.is_file() else []
    done = [r for r in records if r.get("status") == "finished" and r.get("split") == "test"]
    done = [r for r in done if is_of(r, cfg)]
    return next((r for r in reversed(done) if accuracy_of(r) is not None), {})


def _name(runs: Sequence[Seen]) -> None:
    """Gives each setting a name of its own: the method's, and what differs from its others."""
    for method in dict.fromkeys(one.method for one in runs):
        mine = [one for one in runs if one.method == method]
        differing = _differing(mine) if mine[0].learns else {}
        names: dict[str, str] = {}  # setting → name
        for one in mine:
            key = json.dumps(one.setting, sort_keys=True) if differing else ""
            if key not in names:
                told = ", ".join(told for k in differing if (told := _told(k, one.setting.get(k))))
                name = f"{method} ({told})" if told else method
                taken = name in names.values()
                names[key] = f"{name} in {one.folder.name}" if taken else name
            one.name = names[key]


def _differing(runs: Sequence[Seen]) -> list[str]:
    """Returns the keys in which settings on one dataset differ."""
    keys: dict[str, None] = {}
    for dataset in dict.fromkeys(one.dataset for one in runs):
        settings = [one.setting for one in runs if one.dataset == dataset]
        for key in sorted({key for setting in settings for key in setting}):
            if any(setting.get(key) != settings[0].get(key) for setting in settings):
                keys[key] = None
    return list(keys)


def _told(key: str, value: Any) -> str:
    if key == "DATASET.NUM_SHOTS" and value == -1:
        return "all images"
    if key == "DATASET.NUM_SHOTS":
        return counted(value, "shot") if isinstance(value, int) else f"{value} shots"
    return "" if value in ("", None) else f"{key.rpartition('.')[2]} {value}"


@dataclass(eq=False)
class Setting:
    """Runs on one test that differ in nothing but the seed.

    Attributes:
        name: of its runs.
        test: dataset and classes.
    """

    name: str
    test: tuple[str, str]
    runs: list[Seen] = field(default_factory=list)

    @property
    def samples(self) -> dict[int, float]:
        """Seed → accuracy in per cent, of the runs that are finished."""
        return {one.seed: one.accuracy for one in self.runs if one.accuracy is not None}

    @property
    def learns(self) -> bool:
        return self.runs[0].learns


def settings_of(runs: Sequence[Seen]) -> list[Setting]:
    """Returns the settings of runs, in order."""
    found: dict[tuple, Setting] = {}
    for one in runs:
        key = (one.name, one.test)
        found.setdefault(key, Setting(one.name, one.test)).runs.append(one)
    for setting in found.values():
        setting.runs.sort(key=lambda one: one.seed)
        for one, other in zip(setting.runs, setting.runs[1:]):
            if one.seed == other.seed:
                logger.warning(
                    f"Note: {one.folder} and {other.folder} are of one setting and seed: "
                    "the latter counts"
                )
    return list(found.values())
