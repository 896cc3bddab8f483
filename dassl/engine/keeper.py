"""Keeps a training's state by time and at signals, and puts a resumed training back into it."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dassl.config.yaml_file import read_yaml
from dassl.engine import identity
from dassl.engine.progress import (
    Place,
    check_place,
    check_sizes,
    cut_to,
    drop_records,
    file_sizes,
    keep_as_newest,
    meters_state,
    read_progress,
    save_progress,
    set_meters,
)
from dassl.engine.signals import StopSignals, TrainingStopped
from dassl.utils import CheckpointError, MissingFileError, load_checkpoint, write_atomically
from dassl.utils.checkpoint import BEST_FILE, POINTER_FILE, restore_checkpoint
from dassl.utils.files import write_text
from dassl.utils.logger import current_log, get_logger
from dassl.utils.random_state import random_state, set_random_state
from dassl.utils.results import config_digest, determining_settings
from dassl.utils.text import counted

logger = get_logger(__name__)

CANNOT_GO_ON = (
    "cannot be gone on with: SEED is negative, so each start draws another few-shot sample; give "
    "--seed"
)
EXTRA = "progress"  # entry of a checkpoint in the public format


class ProgressKeeper:
    """Knows the latest place that a training can go on from.

    Args:
        trainer: a SimpleTrainer.
        seconds: between two saved states; 0: they are saved at signals and kept epochs alone.
    """

    def __init__(self, trainer: Any, seconds: float) -> None:
        self.trainer, self.seconds = trainer, seconds
        self.signals = StopSignals()
        self._place: Place | None = None  # None: nothing has been learned, or all is saved
        self._epoch_random: dict[str, Any] | None = None
        self._wanted: Place | None = None  # within the epoch that a resumed run begins with
        self._saved_at = time.monotonic()

    @property
    def can_go_on(self) -> bool:
        """Whether a stopped training can be continued: not if nobody can draw its sample again."""
        sample = getattr(self.trainer.dm.dataset, "provenance", {}).get("few_shot")
        return self.trainer.cfg.SEED >= 0 or not sample

    # --- while training ---------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Call it before anything of an epoch is drawn."""
        if self._wanted is not None:
            set_random_state(self._wanted.epoch_random)
        self._epoch_random = random_state(gpus=True)

    def leave_out_batches(self, load: Callable[[], Any]) -> int:
        """Draws the batches that were learned from before a break; returns their number."""
        place, self._wanted = self._wanted, None
        if place is None:
            return 0
        if (place.batch or 0) > self.trainer.num_batches:
            raise CheckpointError(
                f"the run stopped after batch {place.batch} of an epoch that has "
                f"{self.trainer.num_batches} here: the data is another"
            )
        for _ in range(place.batch or 0):
            load()
        set_random_state(place.random)
        set_meters(self.trainer._losses, place.losses or {})
        return place.batch or 0

    def at_batch(self, batch: int) -> None:
        """Call it between batches, with the number of those that are done.

        Raises:
            TrainingStopped: a signal asked for it.
        """
        if self._epoch_random is None:
            return  # an epoch by itself, outside of `train`
        self._place = Place(self.trainer.epoch, batch, random_state(), self._epoch_random)
        self._save_if_due()

    def end_epoch(self, keep: bool) -> None:
        """Call it at the very end of an epoch.

        Args:
            keep: save the state in any case.

        Raises:
            TrainingStopped: a signal asked for it.
        """
        self._place = Place(self.trainer.epoch + 1, None, random_state())
        self._save_if_due(at_any_time=keep)

    def _save_if_due(self, at_any_time: bool = False) -> None:
        self.signals.check()  # whoever catches it saves
        due = 0 < self.seconds <= time.monotonic() - self._saved_at
        if due or at_any_time:
            self.save()

    def save(self) -> None:
        """Saves the state of the latest place, unless it is saved."""
        trainer, place = self.trainer, self._place
        if place is None:
            return
        trainer.read_reports()  # nothing is saved from after a loss that is not finite
        trainer.flush_writer()
        if torch.cuda.is_initialized():
            states = torch.cuda.get_rng_state_all()
            place = place._replace(random={**place.random, "cuda": states})
        if place.batch is not None:
            place = place._replace(losses=meters_state(trainer._losses))
        names = trainer.get_model_names()
        state = {
            identity.KEY: trainer.made_by(),
            "models": {name: trainer.model_state(name, place.epoch) for name in names},
            "progress": trainer.progress(),
            "place": place._asdict(),
        }
        save_progress(trainer.output_dir, state)
        self._place, self._saved_at = None, time.monotonic()

    def stopped(self, stop: TrainingStopped) -> TrainingStopped:
        """Saves what there is to save after a signal; returns what to raise."""
        trainer, folder = self.trainer, str(self.trainer.output_dir)
        where = f"epoch {trainer.epoch + 1} of {trainer.max_epoch}"
        self.save()
        message = f"{stop} in {where}; what was learned is kept in {folder}"
        if not self.can_go_on:
            return TrainingStopped(stop.signum, f"{message}, but {CANNOT_GO_ON}")
        return TrainingStopped(stop.signum, message, folder)

    # --- resuming ---------------------------------------------------------------------------------

    def restore(self, directory: str) -> int:
        """Puts the trainer back to where the run in `directory` stopped; returns its epoch.

        Raises:
            MissingFileError: there is no such run.
            CheckpointError: it is another run, or nothing of it can be read.
        """
        trainer, folder = self.trainer, Path(directory)
        found, names = read_progress(folder), trainer.get_model_names()
        if found is not None:
            epoch = self._take(*found)
        elif names and all(any(folder.glob(f"{name}/model*")) for name in names):
            epoch = trainer.resume_model_if_exist(directory)
            if epoch > trainer.max_epoch:
                raise CheckpointError(
                    f"{folder} has learned for {counted(epoch, 'epoch')}, and OPTIM.MAX_EPOCH is "
                    f"{trainer.max_epoch}: set {epoch} or more"
                )
            if trainer.draws_differ and epoch < trainer.max_epoch:
                logger.warning(
                    f"Note: there is no random state in the checkpoints of {folder}, so this run "
                    "draws other numbers than one without a break"
                )
        elif (folder / "config.yaml").is_file():
            self._check_config(folder / "config.yaml")
            logger.warning(f"Note: {folder} holds no checkpoint yet, so the training starts anew")
            self._forget_the_rest(folder, 0, {})
            epoch = 0
        else:
            raise MissingFileError(
                f"nothing to resume in {folder}: it has neither progress.pt nor a folder "
                f"{(names or ['model'])[0]} with checkpoints"
            )
        self._bring_best_model(folder)
        return epoch

    def _take(self, path: Path, state: dict[str, Any]) -> int:
        trainer, folder = self.trainer, path.parent
        try:
            identity.check_same_run(state[identity.KEY], trainer.made_by(), path)
            place, models = Place(**state["place"]), state["models"]
            check_place(place, trainer.max_epoch)
            logger.info(f"Found checkpoint at {folder} (will resume training)")
            for name in trainer.get_model_names():
                logger.info(f'Loading checkpoint from "{path}"')
                restore_checkpoint(models[name], path, *trainer.parts_of(name))
            trainer.set_progress(state["progress"])
            self._check_best_so_far(folder)
            set_random_state(place.random)
            self._wanted = None if place.batch is None else place
            sizes = state["files"]
            check_sizes(sizes)
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path} is no saved state of a training: {error!r}") from None
        done = f", after {place.batch} batches of the next" if place.batch else ""
        logger.info(f"Previous epoch: {place.epoch}{done}")
        identity.note_other_arithmetic(state[identity.KEY], trainer.made_by())
        trainer.model_epoch = place.epoch
        if self._is_own(folder):
            keep_as_newest(path)
        if not self._is_longer(state):
            self._forget_the_rest(folder, place.epoch, sizes)
        return place.epoch

    def extra_entries(self) -> dict[str, Any]:
        """Returns what makes a checkpoint in the public format one to go on from as if there had
        been no break."""
        trainer = self.trainer
        trainer.flush_writer()
        random = random_state(gpus=True)
        files = file_sizes(trainer.output_dir)
        progress = {"random": random, "files": files, "own": trainer.progress()}
        return {identity.KEY: trainer.made_by(), EXTRA: progress}

    def after_resuming(self, path: Path, checkpoint: dict[str, Any]) -> None:
        """Takes the extra entries of a checkpoint; there are none in those of other programs."""
        trainer, run_folder = self.trainer, path.parent.parent
        extra = checkpoint.get(EXTRA)
        trainer.draws_differ = extra is None
        if extra is None:
            return
        try:
            set_random_state(extra["random"])
            trainer.set_progress(extra["own"])
            self._check_best_so_far(run_folder)
            check_sizes(extra["files"])
            if not self._is_longer(checkpoint):
                self._forget_the_rest(run_folder, checkpoint["epoch"], extra["files"])
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path} holds no state to go on from: {error!r}") from None
        identity.note_other_arithmetic(checkpoint.get(identity.KEY), trainer.made_by())
        if self._is_own(run_folder):
            write_text(path.parent / POINTER_FILE, f"{path.name}\n")

    def _is_own(self, folder: Path) -> bool:
        """Whether this run goes on in the folder that it was resumed from."""
        return folder.resolve() == Path(self.trainer.output_dir).resolve()

    def _is_longer(self, saved: dict[str, Any]) -> bool:
        """Whether this run trains more epochs than the one that saved a state: it is another run,
        and what the shorter one wrote stays."""
        key = "OPTIM.MAX_EPOCH"
        return saved[identity.KEY]["settings"][key] != self.trainer.made_by()["settings"][key]

    def _forget_the_rest(self, folder: Path, epoch: int, sizes: dict[str, int]) -> None:
        """Takes out what the interrupted run wrote later, if this run goes on in its folder."""
        if not self._is_own(folder):
            return
        cut_to(folder, sizes, current_log())
        drop_records(folder / "results.jsonl", config_digest(self.trainer.cfg), epoch)

    def _bring_best_model(self, folder: Path) -> None:
        """Copies the best model so far into another output folder."""
        trainer = self.trainer
        if math.isinf(trainer.best_result):
            return
        for name in trainer.get_model_names():
            source, target = (Path(f) / name / BEST_FILE for f in (folder, trainer.output_dir))
            if source.is_file() and source.resolve() != target.resolve():
                write_atomically(target, lambda part, source=source: shutil.copy(source, part))

    def _check_config(self, path: Path) -> None:
        made_by = self.trainer.made_by()
        try:
            then = determining_settings(read_yaml(path))
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning(f"Note: what {path} says is not compared: {error}")
            return
        known = {"settings": identity.flat(then), "classnames": made_by["classnames"]}
        identity.check_same_run(known, made_by, path)

    def check_best_model(self) -> None:
        """Raises CheckpointError if the best model in the output folder is not of this run."""
        best = self.trainer.best_result
        for path, result in self._best_results(Path(self.trainer.output_dir)):
            if math.isfinite(best) and result != best:
                raise CheckpointError(
                    f"{path} is of another run: its result on the val set is {result}, and the "
                    f"best of this run is {best}"
                )

    def _check_best_so_far(self, folder: Path) -> None:
        """Raises CheckpointError if the run in `folder` cannot end as its best model is lost.

        That file may be of a later epoch than the state, which then comes again.
        """
        trainer = self.trainer
        if trainer.cfg.TEST.FINAL_MODEL == "best_val" and math.isfinite(trainer.best_result):
            list(self._best_results(folder))

    def _best_results(self, folder: Path) -> Iterator[tuple[Path, Any]]:
        """Yields the files of the best model and what they say of its result on the val set.

        Raises:
            CheckpointError: one is missing, damaged, or of another run.
        """
        for name in self.trainer.get_model_names():
            path = folder / name / BEST_FILE
            if not path.is_file():
                raise CheckpointError(
                    f"{path} is missing, the best model of this run so far: start it anew "
                    "without --resume (--overwrite)"
                )
            checkpoint = load_checkpoint(str(path))
            identity.check_same_run(checkpoint.get(identity.KEY), self.trainer.made_by(), path)
            yield path, checkpoint.get("val_result")
