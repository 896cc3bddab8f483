"""What other people's trainers find lacking here: supplied where it can be, or explained."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch
import yacs.config
from torch import nn
from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from dassl.utils.plugins import lines_for_a_gpu

logger = get_logger(__name__)

# What other people's files import from `dassl.engine.trainer`, and where it is here.
ALSO_IN_TRAINER = {
    "SummaryWriter": "torch.utils.tensorboard",  # loaded when it is asked for
    **dict.fromkeys(("build_lr_scheduler", "build_optimizer"), "dassl.optim"),
    **dict.fromkeys(("count_num_param", "tolist_if_not"), "dassl.utils"),
    **dict.fromkeys(("load_checkpoint", "save_checkpoint"), "dassl.utils"),
    **dict.fromkeys(("load_pretrained_weights", "resume_from_checkpoint"), "dassl.utils"),
}


def also_in_trainer(name: str) -> Any:
    """The `__getattr__` of `dassl.engine.trainer`."""
    if name not in ALSO_IN_TRAINER:
        raise AttributeError(f"module 'dassl.engine.trainer' has no attribute {name!r}")
    return getattr(importlib.import_module(ALSO_IN_TRAINER[name]), name)


def modules_of(trainer: type) -> list[ModuleType]:
    """Returns a trainer's module, and those of files beside it that names are taken from."""
    own = sys.modules.get(trainer.__module__)
    found: dict[str, ModuleType] = {}
    todo = [own]
    while todo:
        module = todo.pop()
        if module is None or module.__name__ in found or _folder(module) != _folder(own):
            continue
        found[module.__name__] = module
        values = (v for v in vars(module).values() if isinstance(v, (type, FunctionType)))
        todo += [sys.modules.get(name) for name in sorted({v.__module__ for v in values})]
    return [module for module in found.values() if _folder(module)]


def _folder(module: ModuleType | None) -> Path | None:
    file = Path(getattr(module, "__file__", None) or "")
    return file.parent if file.is_file() else None  # what is typed has "<stdin>", or nothing


def says_what_asks_for_a_gpu(trainer: type) -> bool:
    """Tells of the lines of a trainer's files that ask for a GPU; returns whether there are any."""
    asking = {m.__file__: lines_for_a_gpu(Path(m.__file__)) for m in modules_of(trainer)}
    for file, lines in asking.items():
        if lines:
            logger.warning(
                f"Note: {file} asks for a GPU in line {listed(lines)}, and this run has none: what "
                "it puts there stays on the CPU"
            )
    return any(asking.values())


def says_that_it_is_in_half(trainer: object) -> bool:
    """Tells whether a trainer's models are in half precision, where that is on a CPU."""
    models = [*trainer._models.values(), *vars(trainer).values()]
    modules = (model for model in models if isinstance(model, nn.Module))
    if half := any(p.dtype == torch.float16 for module in modules for p in module.parameters()):
        logger.warning(
            f"Note: {type(trainer).__name__} is in half precision, on a CPU: its products are "
            "summed in float32, as on a GPU"
        )
    return half


def complete_templates(trainer: object, name: str) -> None:
    """Adds the data set's own template to tables of templates that have none for it.

    Args:
        trainer: has its data; tables, {name of a data set: text with {}}, are looked for in the
            files of its class.
        name: of the data set.
    """
    dataset = getattr(getattr(trainer, "dm", None), "dataset", None)
    template = getattr(dataset, "template", None)
    for module in modules_of(type(trainer)) if isinstance(template, str) else ():
        for key, table in vars(module).items():
            if _is_of_templates(table) and isinstance(table.get(name, _Added()), _Added):
                logger.warning(
                    f"Note: {key} of {module.__file__} has nothing for the data set {name!r}; its "
                    f"own template is taken, {template!r}"
                )
                table[name] = _Added(template)


class _Added(str):
    """A template that was added to somebody else's table, for this run."""


def _is_of_templates(table: object) -> bool:
    if not isinstance(table, dict) or not any(name in DATASET_REGISTRY for name in table):
        return False
    return all(isinstance(value, str) and "{}" in value for value in table.values())


def complete_data(trainer: Any) -> None:
    """Gives a trainer whose loaders are its own a `dm` that knows the data behind them."""
    if hasattr(trainer, "dm") or not hasattr(trainer, "lab2cname"):
        return
    loaders = {"train_x": "train_loader_x", "train_u": "train_loader_u"}
    loaders |= {"val": "val_loader", "test": "test_loader"}
    behind = {k: getattr(getattr(trainer, v, None), "dataset", None) for k, v in loaders.items()}
    items = {k: getattr(v, "data_source", None) or [] for k, v in behind.items()}
    names = [trainer.lab2cname[i] for i in sorted(trainer.lab2cname)]
    known = {"num_classes": trainer.num_classes, "lab2cname": trainer.lab2cname}
    dataset = SimpleNamespace(**items, **known, classnames=names)
    trainer.dm = SimpleNamespace(dataset=dataset, **known)


def check_images(trainer: Any, training: bool) -> None:
    """As `DataManager.check_images`, where a trainer's data manager has that."""
    check = getattr(getattr(trainer, "dm", None), "check_images", None)
    if check is not None:
        check(training=training)


def load_trained(trainer: Any, directory: str, epoch: int | None) -> None:
    """Calls `load_model`, which takes `cfg` too in some files."""
    takes_cfg = "cfg" in inspect.signature(trainer.load_model).parameters
    trainer.load_model(directory, **({"cfg": trainer.cfg} if takes_cfg else {}), epoch=epoch)


@contextmanager
def missing_names_explained(trainer: type, cfg: CfgNode) -> Iterator[None]:
    """Says where a name is missing that a trainer's files look up, in a table or in `cfg`; or a
    file that they open."""
    name = cfg.DATASET.NAME
    try:
        yield
    except KeyError as error:
        if error.args != (name,):
            raise
        raise ConfigError(
            f"{_place(error)}: nothing is there for the data set {name!r} (DATASET.NAME); add it "
            "to the table that this line looks into"
        ) from error
    except AttributeError as error:
        if traceback.extract_tb(error.__traceback__)[-1].filename != yacs.config.__file__:
            raise
        if "immutable" in str(error):
            raise ConfigError(
                f"{_place(error)}: settings are frozen here, as in the public train.py, and its "
                "own program leaves them open: write cfg.defrost() in the line before"
            ) from error
        raise ConfigError(
            f"{_place(error)}: there is no setting {error}; declare it in a file beside the "
            "trainer's, or put its repository's train.py there (docs/porting.md)"
        ) from error
    except FileNotFoundError as error:
        place = _place(error, _folder(sys.modules.get(trainer.__module__)))
        if not place or not error.filename or isinstance(error, UserError):
            raise
        raise ConfigError(
            f"{place}: {error.filename} is not there: bring it along, to where this line looks for "
            "it from here"
        ) from error


def _place(error: Exception, folder: Path | None = None) -> str:
    """Returns file, line and text of where an error was made; with a folder, by one of its files,
    or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if frame.filename != yacs.config.__file__]
    if folder is not None:
        frames = [frame for frame in frames if folder in Path(frame.filename).parents]
    return "".join(f"{f.filename}, line {f.lineno}, `{f.line}`" for f in frames[-1:])
