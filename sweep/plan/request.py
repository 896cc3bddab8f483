"""What a user asked for: a protocol or table with changes; kept beside the results as JSON."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from dassl.utils import (
    ConfigError,
    DataError,
    UnknownNameError,
    UserError,
    read_json,
    write_json,
)
from dassl.utils.errors import not_one_of
from dassl.utils.logger import get_logger
from sweep.plan.own import OWN, is_own
from sweep.plan.protocols import FEW_SHOT, Cell, new_classes_per_epoch
from sweep.plan.recipes import BACKBONES, EMBEDDED, Method, methods_for
from sweep.plan.run import ROOT, Run
from sweep.plan.table import Table
from sweep.plan.tables import POSITIONS, few_shot_methods, table_named

logger = get_logger(__name__)

MAX_SHOTS = 1024
MAX_BYTES = 2**16  # of a request
ODD = (OSError, ValueError, TypeError, RecursionError, MemoryError)  # of values nobody would type
# Types of a request's fields → types in JSON: of the value, and of what is in a list.
KINDS: dict[str, tuple[type, type | None]] = {
    "str": (str, None),
    "bool": (bool, None),
    "tuple[str, ...]": (list, str),
    "tuple[int, ...]": (list, int),
    "tuple[bool, ...]": (list, bool),
}


# What a sweep sets for each run, and what says it.
OF_THE_PLAN = {
    "SEED": "--seeds says that",
    "TRAINER.NAME": "--trainers says that",
    "DATASET.NAME": "--datasets says that",
    "DATASET.NUM_SHOTS": "--shots says that",
    "DATASET.ROOT": "--root says that",
    "DATASET.SUBSAMPLE_CLASSES": "each run has the classes that its table needs",
    "TEST.SPLIT": "tables are of the test set",
    "TEST.NO_TEST": "tables are of tests",
    "OUTPUT_DIR": "each run has a folder of its own in --output",
    "RESUME": "a sweep goes on by itself",
}


@dataclass(frozen=True)
class Request:
    """The arguments that decide which runs a sweep has; () and "" mean the paper's setting."""

    what: str
    trainers: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    shots: tuple[int, ...] = ()
    contexts: tuple[int, ...] = ()
    positions: tuple[str, ...] = ()
    csc: tuple[bool, ...] = ()
    backbone: str = ""
    recipe: str = ""
    source: str = ""
    opts: tuple[str, ...] = ()
    per_epoch: bool = False

    def table(self) -> Table:
        """Returns the table with all changes made.

        Raises:
            UnknownNameError, ConfigError: the first thing that is wrong.
        """
        self._check()
        table = table_named(self.what)
        if self.recipe:
            table = replace(table, published="")  # the paper's numbers are for the paper's recipe
        return table.with_setting(
            methods=self._methods(table),
            datasets=None if self.datasets in ((), ("all",)) else self.datasets,
            seeds=self.seeds or None,
            shots=self.shots or None,
            backbone=self._backbone(table),
            own_clip=False if self.backbone else None,
            source=self.source or None,
            opts=self.opts or None,
            per_epoch=self.per_epoch or None,
        )

    def _methods(self, table: Table) -> tuple[Method, ...] | None:
        """Returns the methods asked for; None: the table's own."""
        own = table.setting.methods
        methods: tuple[Method, ...] | None = None
        if self.trainers or self.recipe:
            names = self.trainers or [method.trainer for method in own]
            methods = methods_for(names, self.recipe, tuple(self.datasets) == (EMBEDDED,))
        if self.contexts or self.positions or self.csc or (methods and table.protocol is FEW_SHOT):
            methods = few_shot_methods(
                methods or own,
                self.contexts or (16,),
                self.positions or ("end",),
                self.csc or (False,),
            )
        if self.recipe:
            methods = tuple(m.with_recipe(self.recipe, self.backbone) for m in methods or own)
        return methods

    def _backbone(self, table: Table) -> str | None:
        """Returns the backbone of all runs, asked for or the recipe's; None: the table's own."""
        if self.backbone or not self.recipe:
            return self.backbone or None
        trainer = (self._methods(table) or table.setting.methods)[0].trainer
        run = Run(trainer, table.setting.datasets[0], self.recipe, opts=self.opts)
        return run.settings["MODEL"]["BACKBONE"]["NAME"]

    def cells(self) -> list[Cell]:
        return self.table().cells()

    def runs(self) -> tuple[Run, ...]:
        """Returns all runs, each training right before its evaluations."""
        cells = self.cells()
        wanted = [run for cell in cells for run in cell.runs]
        if self.per_epoch:
            wanted += new_classes_per_epoch(cells)
        return in_order(wanted)

    def _check(self) -> None:
        known = dataset_names()
        for name in (*self.datasets, self.source):
            if name and name != "all" and name not in known and not is_own(name):
                raise UnknownNameError(
                    not_one_of("--datasets", name, ["all", *known])
                    + f" Images of your own: {OWN}, where --root names their folder; or the names "
                    f"of several folders below --root, {OWN}/NAME where --root is not given."
                )
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise ConfigError(f"--seeds {seed}: expected whole numbers from 0 to 4294967295")
        for shots in self.shots:
            if not 1 <= shots <= MAX_SHOTS:
                raise ConfigError(
                    f"--shots {shots}: expected images per class, 1 to {MAX_SHOTS}; the papers "
                    "have 1 2 4 8 16"
                )
        if len(self.shots) > 1 and table_named(self.what).protocol is not FEW_SHOT:
            raise ConfigError(f"--shots: {self.what} trains with one number of shots; give one")
        for m in self.contexts:
            if not 1 <= m <= 75:
                raise ConfigError(f"--ctx {m}: expected 1 to 75 context vectors")
        for position in self.positions:
            if position not in (*POSITIONS, "front"):
                raise ConfigError(not_one_of("--position", position, (*POSITIONS, "front")))
        if self.backbone and self.backbone not in (*BACKBONES, "tiny"):
            raise ConfigError(
                not_one_of("--backbone", self.backbone, BACKBONES)
                + " For another, use --recipe and --opts MODEL.BACKBONE.NAME."
            )
        for key in self.opts[::2]:
            if key in OF_THE_PLAN:
                raise ConfigError(f"--opts {key}: {OF_THE_PLAN[key]}; leave it out of --opts")
        if len(self.opts) % 2:
            raise ConfigError(f"--opts {' '.join(self.opts)}: not KEY VALUE pairs, one is missing")
        for name, values in (("--seeds", self.seeds), ("--datasets", self.datasets)):
            if len(set(values)) != len(values):
                raise ConfigError(f"{name} {' '.join(map(str, values))}: one is given twice")

    # --- on disk ----------------------------------------------------------------------------------

    def save(self, output: Path) -> Path:
        """Keeps the request in `<output>/sweeps`, for `sweep status`."""
        content = json.loads(json.dumps(asdict(self)))
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        path = output / "sweeps" / f"{self.what}-{key}.json"
        try:
            kept = Request.load(path) == self
        except (UserError, OSError):  # lost, or damaged
            kept = False
        if not kept:
            write_json(content, path)
        return path

    @classmethod
    def load(cls, path: Path) -> Request:
        """Reads a request that was kept.

        Raises:
            MissingFileError: there is none.
            DataError: the file holds something else.
        """
        if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_BYTES):
            raise DataError(f"{path} is no file, or far too long for a request of a sweep")
        content = read_json(path)
        if not isinstance(content, dict) or not _fits(content):
            raise DataError(f"{path} holds no request of a sweep")
        return cls.from_dict(content)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Request:
        """Returns the request with these fields, of which lists become tuples."""
        fields: dict[str, Any] = {}
        for key, value in content.items():
            fields[key] = tuple(value) if isinstance(value, list) else value
        return cls(**fields)

    def flags(self) -> str:
        """Returns the command-line arguments that ask for the same."""
        parts = [self.what]
        names = {"contexts": "ctx", "positions": "position", "per_epoch": "per-epoch"}
        for key, value in asdict(replace(self, what="")).items():
            flag = f"--{names.get(key, key)}"
            if value is True:
                parts.append(flag)
            elif value and key != "opts":
                values = value if isinstance(value, tuple) else (value,)
                parts += [flag, *map(str, values)]
        if self.opts:
            parts += ["--opts", *self.opts]
        return shlex.join(parts)


def _fits(content: dict[str, Any]) -> bool:
    """Whether these are the fields of a request, each of its type."""
    kinds = {field.name: KINDS[str(field.type)] for field in fields(Request)}
    if "what" not in content or not content.keys() <= kinds.keys():
        return False
    for name, value in content.items():
        plain, inner = kinds[name]
        if type(value) is not plain:
            return False
        if inner and isinstance(value, list) and any(type(x) is not inner for x in value):
            return False
    return True


def kept_requests(output: Path) -> list[Request]:
    """Returns what was asked for in an output folder; what cannot be read is passed over, said."""
    found = []
    for path in sorted((output / "sweeps").glob("*.json")):
        try:
            request = Request.load(path)
            for run in request.runs():
                run.digest  # noqa: B018 - whether its settings are right
            found.append(request)
        except (UserError, *ODD) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            logger.warning(f"Note: {path} is passed over: {lines[0]}")
    return found


def in_order(wanted: list[Run]) -> tuple[Run, ...]:
    """Returns every run once, a training before its evaluations and next to them."""
    groups: dict[Run, dict[Run, None]] = {}
    for run in wanted:
        groups.setdefault(run.source or run, {})
        if run.source is not None:
            groups[run.source][run] = None
    return tuple(run for trained, tests in groups.items() for run in (trained, *tests))


def dataset_names() -> list[str]:
    """Returns the files in configs/datasets; the embedded one first."""
    names = sorted(path.stem for path in (ROOT / "configs" / "datasets").glob("*.yaml"))
    return sorted(names, key=lambda name: name != EMBEDDED)
