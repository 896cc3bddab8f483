"""TRAINER.NAME → trainer."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType

import yacs.config
from yacs.config import CfgNode

from dassl.utils.device import device_of
from dassl.utils.errors import ConfigError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from dassl.utils.plugins import lines_for_a_gpu
from dassl.utils.registry import Registry, file_of

logger = get_logger(__name__)

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode):
    """Builds the trainer that TRAINER.NAME stands for.

    Raises:
        UnknownNameError: (a KeyError) there is none of that name.
        ConfigError: two files registered it; or its file asks for a setting, or for something about
            the data set, that nobody has written down.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        logger.info(f"Loading trainer: {cfg.TRAINER.NAME}")
    if device_of(cfg).type == "cpu":
        _say_what_needs_a_gpu(trainer)
    with _missing_names_explained(cfg):
        return trainer(cfg)


def _say_what_needs_a_gpu(trainer: type) -> None:
    for file in _files_of(trainer):
        if lines := lines_for_a_gpu(file):
            logger.warning(
                f"Note: {file} asks for a GPU in line {listed(lines)}, and this run has none: it "
                "will fail there. Write .to(self.device) in these places."
            )


def _files_of(trainer: type) -> list[Path]:
    """Returns a trainer's file, and those beside it that it takes classes and functions from."""
    own = file_of(trainer)
    names = vars(sys.modules.get(trainer.__module__, object)).values()
    used = {file_of(value) for value in names if isinstance(value, (type, FunctionType))}
    return sorted(path for path in {own, *used} if path.parent == own.parent and path.is_file())


@contextmanager
def _missing_names_explained(cfg: CfgNode) -> Iterator[None]:
    """Says where a name is missing that other people's files look up, in a table or in `cfg`."""
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
        raise ConfigError(
            f"{_place(error)}: there is no setting {error}; declare it in a file beside the "
            "trainer's, or put its repository's train.py there (docs/porting.md)"
        ) from error


def _place(error: Exception) -> str:
    """Returns file, line and text of where an error was made."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = [frame for frame in frames if frame.filename != yacs.config.__file__][-1]
    return f"{frame.filename}, line {frame.lineno}, `{frame.line}`"
