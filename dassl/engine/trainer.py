"""SimpleTrainer → TrainerX / TrainerXU: data, evaluation, and the loop over batches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl.data import DataManager
from dassl.data.datasets import image_reader
from dassl.engine import step_reports
from dassl.engine.base import TrainerBase
from dassl.engine.identity import identity_of
from dassl.engine.keeper import CANNOT_GO_ON, ProgressKeeper
from dassl.engine.others import also_in_trainer, complete_data, complete_templates
from dassl.engine.progress import forget_progress
from dassl.engine.record import (
    accuracy_if_finished,
    evaluated,
    evaluation_record,
    title,
    what_it_rests_on,
)
from dassl.engine.signals import TrainingStopped
from dassl.engine.step_reports import MOST_WAITING, StepReports
from dassl.engine.wandb_writer import open_wandb, report
from dassl.evaluation import ErrorAnalysis, build_evaluator, error_analysis
from dassl.utils import AverageMeter, MetricMeter, mkdir_if_missing
from dassl.utils.bars import bar
from dassl.utils.checkpoint import BEST_FILE
from dassl.utils.device import device_of, forget_peak_memory
from dassl.utils.logger import get_logger
from dassl.utils.results import append_record

logger = get_logger(__name__)

__all__ = ["SimpleTrainer", "TrainerBase", "TrainerX", "TrainerXU"]


def __getattr__(name: str) -> Any:
    return also_in_trainer(name)


class SimpleTrainer(TrainerBase):
    """Data, model and evaluator from a configuration; evaluation; checkpoints by schedule.

    Building it calls, in this order, `check_cfg`, `build_data_loader`, `build_model`.
    """

    _reports: StepReports | None = None  # of the epoch's steps
    _losses: MetricMeter  # what they have reported so far
    _resumed = False
    _finished: float | None = None  # accuracy of a run that was resumed, but is finished
    ends_training = False  # whether the evaluation at the end of a training is at work

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.check_cfg(cfg)
        self.device = device_of(cfg)
        forget_peak_memory(self.device)
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        complete_data(self)
        complete_templates(self, cfg.DATASET.NAME)
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = -math.inf
        self._unread_losses: list[tuple[int, Tensor]] = []  # (batch, loss), on a GPU
        self._keeper = ProgressKeeper(self, cfg.TRAIN.CHECKPOINT_SECONDS)
        self.draws_differ = False  # from those of a training without a break

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raises ConfigError if the configuration does not suit this trainer."""

    def build_data_loader(self) -> None:
        """Sets `dm`, the loaders, `num_classes` and `lab2cname`."""
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u  # None where there are no unlabelled images
        self.val_loader = dm.val_loader  # None where there is no validation split
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Builds the model and registers it."""
        raise NotImplementedError(f"{type(self).__name__} must define build_model()")

    def train(self) -> float | None:
        """Trains and evaluates; returns the accuracy in per cent (None with TEST.NO_TEST).

        Raises:
            TrainingStopped: (a KeyboardInterrupt) SIGINT or SIGTERM came; RESUME goes on.
        """
        if self.cfg.RESUME and not self._resumed:
            self.resume()
        if self._finished is not None:
            what = f"{self.output_dir} is finished ({self._finished:.1f}%)"
            logger.info(f"{what}: nothing is left to do")
            forget_progress(self.output_dir)
            return self._finished
        if not self._models and type(self).forward_backward is TrainerBase.forward_backward:
            logger.info(f"{type(self).__name__} has nothing to train")
            return self.test()
        with self._keeper.signals:
            try:
                return super().train(self.start_epoch, self.max_epoch)
            except TrainingStopped as stop:
                raise self._keeper.stopped(stop) from None
            finally:
                self.close_writer(exit_code=1)  # it is closed, unless something went wrong

    def resume(self) -> None:
        """Goes back to where the run in RESUME stopped, unless it is finished.

        Raises:
            MissingFileError: there is no such run.
            CheckpointError: it is another run, or nothing of it can be read.
        """
        self._resumed, self._finished = True, accuracy_if_finished(self)
        if self._finished is None:
            self.start_epoch = self._keeper.restore(self.cfg.RESUME)
            self.epoch = max(self.start_epoch - 1, 0)

    def before_train(self) -> None:
        if not self.cfg.RESUME:
            logger.info("No checkpoint found, train from scratch")
        if not self._keeper.can_go_on:
            logger.warning(f"Note: if this training is stopped, it {CANNOT_GO_ON}")
        log_dir = Path(self.output_dir) / "tensorboard"
        mkdir_if_missing(log_dir)
        self.init_writer(str(log_dir))
        self._wandb = open_wandb(self.cfg, resumed=bool(self.cfg.RESUME))
        self.time_start = time.time()

    def begin_epoch(self) -> None:
        self._keeper.begin_epoch()

    def end_epoch(self) -> None:
        last_epoch = self.epoch + 1 == self.max_epoch
        self._keeper.end_epoch(keep=last_epoch or self._keeps_epoch())

    def _keeps_epoch(self) -> bool:
        frequency = self.cfg.TRAIN.CHECKPOINT_FREQ
        return frequency > 0 and (self.epoch + 1) % frequency == 0

    def after_train(self) -> None:
        logger.info("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                logger.info("Deploy the model with the best val performance")
                self._keeper.check_best_model()
                self.load_model(self.output_dir)
            else:
                logger.info("Deploy the last-epoch model")
            self.ends_training = True
            with self.stopping_at_once():
                result = self.test()
            if isinstance(result, (int, float)):  # of a `test` of somebody's own
                self.last_accuracy = float(result)
        forget_progress(self.output_dir)
        elapsed = round(time.time() - self.time_start)
        logger.info(f"Elapsed: {timedelta(seconds=elapsed)}")
        self.close_writer()

    def stopping_at_once(self) -> AbstractContextManager:
        """Inside, SIGINT and SIGTERM need not wait for the end of a batch or an epoch: nothing
        that is learned is being changed."""
        return self._keeper.signals.at_once()

    def after_epoch(self) -> None:
        self.model_epoch = self.epoch + 1
        last_epoch = self.epoch + 1 == self.max_epoch
        if not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(
                    self.epoch, self.output_dir, val_result=result, model_name=BEST_FILE
                )
        if last_epoch or self._keeps_epoch():
            self.save_model(self.epoch, self.output_dir)

    def made_by(self) -> dict[str, Any]:
        return identity_of(self)

    def extra_entries(self) -> dict[str, Any]:
        return self._keeper.extra_entries()

    def after_resuming(self, path: Path, checkpoint: dict[str, Any]) -> None:
        self._keeper.after_resuming(path, checkpoint)

    def progress(self) -> dict[str, Any]:
        """Returns what a resumed run needs beside the checkpoint; random states are added to it."""
        return {"best_result": self.best_result}

    def set_progress(self, state: dict[str, Any]) -> None:
        """Takes what `progress` returned; empty if nothing was kept."""
        self.best_result = state.get("best_result", self.best_result)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates on "val" or "test" (TEST.SPLIT unless given); returns the evaluator's first
        value, the accuracy in per cent. A record goes to `results.jsonl` in the output folder.

        With TEST.ERROR_ANALYSIS, the predictions of TEST.SPLIT go there as well, whatever the
        evaluator; those that only choose the best epoch do not.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        analyse = self.cfg.TEST.ERROR_ANALYSIS and split == self.cfg.TEST.SPLIT
        analysis = ErrorAnalysis(self.lab2cname, image_reader(self.cfg)) if analyse else None
        if split != "val" or self.val_loader is None:
            split = "test"
        logger.info(f"Evaluate on the *{split}* set")
        logger.info(f"It rests on: {what_it_rests_on(self, split)}")
        start = time.perf_counter()
        for batch in bar(split, self.test_inputs(split), unit="batches"):
            output, labels = self.test_step(batch)
            self.evaluator.process(output, labels)
            if analysis is not None:
                analysis.add(output, labels, batch)
        results = evaluated(self, split)
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        record = self.result_record(split, results, time.perf_counter() - start)
        if analysis is not None:
            analysis.save(self.output_dir, title(record), self.cfg.DATASET.ROOT)
        elif split == self.cfg.TEST.SPLIT:  # not what chooses the best epoch
            error_analysis.forget(self.output_dir)
        self.flush_writer()
        append_record(Path(self.output_dir) / "results.jsonl", record)  # last: it says "finished"
        report(self, record)
        self.last_accuracy = next(iter(results.values()))
        return self.last_accuracy

    def test_step(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Returns the model's output and the labels of a batch, on the device."""
        images, labels = self.parse_batch_test(batch)
        return self.model_inference(images), labels

    def test_inputs(self, split: str) -> Iterable:
        """Returns the batches to evaluate "val" or "test" on: the loader, unless overridden."""
        return self.val_loader if split == "val" else self.test_loader

    def result_record(self, split: str, results: dict[str, float], seconds: float) -> dict:
        """Returns everything worth knowing about one evaluation as plain data."""
        return evaluation_record(self, split, results, seconds)

    def model_inference(self, input: Tensor) -> Tensor:
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def _run_batches(self, num_batches: int, load: Any, step: Any) -> None:
        """Runs an epoch of `num_batches` calls of `step(load())`, timing and reporting them."""
        self.set_model_mode("train")
        self._reports, self._losses = StepReports(), MetricMeter()
        batch_time, data_time = AverageMeter(), AverageMeter()
        self.num_batches = num_batches
        first = self._keeper.leave_out_batches(load)
        end = time.time()
        for batch_idx in range(first, num_batches):
            self._keeper.at_batch(batch_idx)
            self.batch_idx = batch_idx
            with self.stopping_at_once():
                batch = load()
            data_time.update(time.time() - end)
            summary = step(batch)
            self._reports.add(batch_idx, self.get_current_lr(), summary)
            prints = self._prints_now()
            if prints or batch_idx + 1 == num_batches or self._reports.due():
                self.read_reports()  # before the clock: it waits for the GPU
            batch_time.update(time.time() - end)
            if prints:
                self._print_progress(batch_time, data_time)
            end = time.time()
        self._keeper.at_batch(num_batches)

    def check_loss(self, loss: Tensor) -> None:
        """Has `detect_anomaly` look at the loss of a step that does its own backward pass.

        On a CPU that happens at once. On a GPU looking would wait for the step, so `read_reports`
        does it; nothing is saved before.
        """
        if not step_reports.must_wait(loss):
            self.detect_anomaly(loss)
            return
        self._unread_losses.append((self.batch_idx, loss.detach().reshape(())))
        if len(self._unread_losses) >= MOST_WAITING:
            self.read_reports()

    def read_reports(self) -> None:
        """Reads what steps have reported: checks losses, averages and writes to TensorBoard.

        Raises:
            NonFiniteLossError: a loss is infinite or NaN, of whatever step since the last call.
        """
        now = self.batch_idx
        unread, self._unread_losses = self._unread_losses, []
        losses = torch.stack([loss for _, loss in unread]).tolist() if unread else []
        for (batch_idx, _), loss in zip(unread, losses):
            self.batch_idx = batch_idx  # the batch that an error names
            self.detect_anomaly(loss)
        for batch_idx, lr, summary in self._reports.take() if self._reports else ():
            self.batch_idx = batch_idx
            self._losses.update(summary)
            for name, value in (summary or {}).items():
                if "loss" in name:
                    self.detect_anomaly(value)  # a step of another kind may not have checked it
            step = self.epoch * self.num_batches + batch_idx
            for name, meter in self._losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", lr, step)
        self.batch_idx = now

    def _prints_now(self) -> bool:
        frequency = self.cfg.TRAIN.PRINT_FREQ
        return (self.batch_idx + 1) % frequency == 0 or self.num_batches < frequency

    def _print_progress(self, batch_time: AverageMeter, data_time: AverageMeter) -> None:
        batch = self.batch_idx + 1
        remaining = self.num_batches - batch
        remaining += (self.max_epoch - self.epoch - 1) * self.num_batches
        eta = timedelta(seconds=int(batch_time.avg * remaining))
        logger.info(
            f"epoch [{self.epoch + 1}/{self.max_epoch}] "
            f"batch [{batch}/{self.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
            f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{self._losses} "
            f"lr {self.get_current_lr():.4e} "
            f"eta {eta}",
            extra={"progress": True},
        )


class TrainerX(SimpleTrainer):
    """Training on labelled images: `forward_backward(batch)` per batch."""

    def train_inputs(self) -> Iterable:
        """Returns the batches of the coming epoch: the loader, unless overridden."""
        return self.train_loader_x

    def run_epoch(self) -> None:
        batches = iter(self.train_inputs())
        self._run_batches(
            len(self.train_loader_x), lambda: next(batches), lambda b: self.forward_backward(b)
        )

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns images, labels and domains on the device."""
        keys = ("img", "label", "domain")
        return tuple(batch[key].to(self.device, non_blocking=True) for key in keys)


class TrainerXU(SimpleTrainer):
    """Training on labelled and unlabelled images: `forward_backward(batch_x, batch_u)`.

    TRAIN.COUNT_ITER says whose batches make an epoch; the other loader starts over when it ends.
    """

    def run_epoch(self) -> None:
        n_x, n_u = len(self.train_loader_x), len(self.train_loader_u)
        num_batches = {"train_x": n_x, "train_u": n_u, "smaller_one": min(n_x, n_u)}
        batches_x, batches_u = _forever(self.train_loader_x), _forever(self.train_loader_u)
        self._run_batches(
            num_batches[self.cfg.TRAIN.COUNT_ITER],
            lambda: (next(batches_x), next(batches_u)),
            lambda pair: self.forward_backward(*pair),
        )

    def parse_batch_train(
        self, batch_x: dict[str, Any], batch_u: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns labelled images, their labels, and unlabelled images on the device."""
        return (
            batch_x["img"].to(self.device, non_blocking=True),
            batch_x["label"].to(self.device, non_blocking=True),
            batch_u["img"].to(self.device, non_blocking=True),
        )


def _forever(loader: Iterable) -> Iterator:
    """Starts the first pass at once: without workers, both loaders of TrainerXU draw the number of
    their pass before either draws its shuffle, as in the public implementation."""
    return chain(iter(loader), chain.from_iterable(repeat(loader)))
