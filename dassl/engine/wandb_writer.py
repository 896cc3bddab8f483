"""Weights & Biases beside TensorBoard: the same scalars; off unless TRAIN.WANDB.PROJECT is set.

Whatever fails there is told once, and the run goes on without it: `results.jsonl` has every result.
"""

from __future__ import annotations

import importlib
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from dassl.utils.errors import not_one_of
from dassl.utils.files import write_text
from dassl.utils.logger import PlainHandler, get_logger
from dassl.utils.random_state import random_state_kept
from dassl.utils.results import own_settings

logger = get_logger(__name__)

ID = "wandb_id.txt"  # in the output folder: a resumed run goes on under it
PATIENCE = 30.0  # seconds for the first answer, and at the end for what is left to send
INSTALL = "pip install wandb"
MODES = ("online", "offline", "disabled")


def wandb_problems(cfg: CfgNode) -> list[str]:
    """Returns a sentence if the package is missing, or what is set cannot count."""
    node = cfg.TRAIN.WANDB
    if node.MODE and node.MODE not in MODES:
        return [not_one_of("TRAIN.WANDB.MODE", node.MODE, MODES)]
    if not node.PROJECT:
        given = ", ".join(f"TRAIN.WANDB.{key}" for key, value in node.items() if value)
        return [f"{given} would be ignored without TRAIN.WANDB.PROJECT."] if given else []
    if is_installed():
        return []
    return [f"TRAIN.WANDB.PROJECT is {node.PROJECT!r}, but wandb is not installed: {INSTALL}"]


def is_installed() -> bool:
    """Whether the package is there; it leaves folders of its own name that look like one."""
    with suppress(ValueError):  # of a module without a spec
        spec = find_spec("wandb")
        return spec is not None and spec.origin is not None
    return True


def open_wandb(cfg: CfgNode, resumed: bool = False) -> WandbWriter | None:
    """Returns what takes the scalars of a run; None if nobody asked for it.

    Args:
        cfg: the configuration.
        resumed: go on with the run whose id is in the output folder, if there is one.
    """
    return WandbWriter(cfg, resumed) if cfg.TRAIN.WANDB.PROJECT else None


def report(trainer: Any, record: Mapping[str, Any]) -> None:
    """Adds what came out of an evaluation to a run's summary.

    An evaluation by itself, of what another run learned, is a run of its own.
    """
    if record["split"] != trainer.cfg.TEST.SPLIT:
        return  # it only chooses the best epoch
    writer = trainer._wandb or open_wandb(trainer.cfg)
    if writer is None:
        return
    metrics = {f"{record['split']}/{name}": value for name, value in record["metrics"].items()}
    writer.add_summary({**metrics, "epoch": record["epoch"], "seconds": record["seconds"]})
    if trainer._wandb is None:
        writer.close()


class WandbWriter:
    """Has what the trainer uses of TensorBoard's writer, and `add_summary`."""

    def __init__(self, cfg: CfgNode, resumed: bool) -> None:
        self._run: Any = None
        self._scalars: dict[str, float] = {}  # of one step, which are sent together
        self._step: tuple[str, int | None] = ("", None)
        self._run = self._attempt(lambda: _begin(cfg, resumed))

    def add_scalar(self, tag: str, value: float, step: int | None = None) -> None:
        place = (tag.partition("/")[0], step)
        if place != self._step:
            self.flush()
            self._step = place
        self._scalars[tag] = float(value)

    def flush(self) -> None:
        scalars, self._scalars = self._scalars, {}
        if scalars and self._run is not None:
            part, step = self._step
            self._attempt(lambda: self._run.log({**scalars, f"{part}/step": step}))

    def add_summary(self, values: Mapping[str, Any]) -> None:
        """Adds what stands for the whole run, such as the accuracy at its end."""
        self.flush()
        if self._run is not None:
            self._attempt(lambda: self._run.summary.update(dict(values)))

    def close(self, exit_code: int = 0) -> None:
        """Ends the run; with another code than 0, it counts as failed."""
        self.flush()
        if self._run is not None:
            self._attempt(lambda: _within(PATIENCE, lambda: self._run.finish(exit_code=exit_code)))
        self._run = None

    def _attempt(self, do: Callable[[], Any]) -> Any:
        """Returns what `do` does; if it fails, that is told, and nothing is tried any more."""
        try:
            with random_state_kept():  # whatever it draws, the training draws the same
                return do()
        except Exception as error:  # of a network, or of somebody else's program
            self._run = None
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning(
                f"Note: Weights & Biases gets nothing more of this run, which goes on: {reason}"
            )
            return None


def _begin(cfg: CfgNode, resumed: bool) -> Any:
    wandb = importlib.import_module("wandb")
    node, folder = cfg.TRAIN.WANDB, Path(cfg.OUTPUT_DIR)
    path = folder / ID
    run_id = path.read_text(encoding="utf-8").strip() if resumed and path.is_file() else ""
    if not run_id:
        run_id = secrets.token_hex(4)
        write_text(path, f"{run_id}\n")
    run = wandb.init(
        project=node.PROJECT,
        entity=node.ENTITY or None,
        name=node.NAME or folder.resolve().name,
        group=node.GROUP or None,
        job_type=node.JOB_TYPE or None,
        mode=node.MODE or None,  # None: as WANDB_MODE says, or else online
        id=run_id,
        resume="allow",
        dir=str(folder),
        config=own_settings(cfg, but=()),
        settings={
            "console": "off",  # it is in log.txt
            "silent": PlainHandler.shown > logging.INFO,
            "init_timeout": PATIENCE,
        },
    )
    for part in ("train", "val", "test"):  # steps of batches and of epochs do not mix
        run.define_metric(f"{part}/*", step_metric=f"{part}/step")
    return run


def _within(seconds: float, do: Callable[[], Any]) -> None:
    """Calls `do`, but waits for its end no longer than that."""
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            do()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"it was not reached within {seconds:.0f} s")
    if errors:
        raise errors[0]
