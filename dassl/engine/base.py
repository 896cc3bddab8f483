"""TrainerBase: models with their optimizers, checkpoints, and the loop over epochs."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dassl.engine import identity
from dassl.engine.record import precision_of
from dassl.optim.aligned import aligned
from dassl.utils import (
    CheckpointError,
    MissingFileError,
    NonFiniteLossError,
    load_checkpoint,
    save_checkpoint,
    tolist_if_not,
)
from dassl.utils.checkpoint import (
    BEST_FILE,
    check_finite,
    check_form,
    newest_checkpoint,
    restore_checkpoint,
    saved_epochs,
)
from dassl.utils.logger import get_logger

logger = get_logger(__name__)


class TrainerBase:
    """Holds models with their optimizers and runs epochs; subclasses fill in the hooks."""

    epoch = 0
    start_epoch = 0
    max_epoch = 0
    batch_idx = 0
    num_batches = 0
    precision = "fp32"
    only_for_training: tuple[str, ...] = ()  # models that an evaluation does without

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()
        self._writer: Any = None  # of TensorBoard
        self._wandb: Any = None  # with the methods of that one
        self.model_epoch: int | None = None  # epochs behind the weights held now
        self.last_accuracy: float | None = None  # per cent, of the latest evaluation
        # What made the weights that were loaded (`identity`); {}: not known; None: none were.
        self.learned_by: Mapping[str, Any] | None = None

    # --- models -----------------------------------------------------------------------------------

    def register_model(
        self, name: str = "model", model: nn.Module = None, optim: Any = None, sched: Any = None
    ) -> None:
        """Puts a model (and its optimizer and schedule) under the loop's care.

        What is registered is saved, resumed, stepped and switched between training and evaluation.

        Raises:
            RuntimeError: `__init__` of the trainer has not been called.
            ValueError: the name is taken.
        """
        if "_models" not in self.__dict__:
            raise RuntimeError("call super().__init__() before register_model()")
        if name in self._models:
            raise ValueError(f"a model named {name!r} is registered already")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """Returns `names` as a list, or all names; raises ValueError for an unknown one."""
        if not names:
            return list(self._models)
        names = tolist_if_not(names)
        for name in names:
            if name not in self._models:
                raise ValueError(f"no model is named {name!r}; there are {list(self._models)}")
        return names

    def tested_model_names(self) -> list[str]:
        """Returns the names of what an evaluation needs."""
        return [name for name in self._models if name not in self.only_for_training]

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Switches models to "train", or to evaluation ("test" or "eval")."""
        if mode not in ("train", "test", "eval"):
            raise ValueError(f"mode is {mode!r}; expected train, test or eval")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Takes one step in the learning-rate schedules; called at the end of an epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """Returns the rate of the first parameter group of the first model."""
        return self._optims[self.get_model_names(names)[0]].param_groups[0]["lr"]

    # --- checkpoints ------------------------------------------------------------------------------

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Saves every registered model to `<directory>/<name>/model.pth.tar-<epoch + 1>`."""
        self.read_reports()  # nothing is saved from after a loss that is not finite
        extra = self.extra_entries()
        for name in self.get_model_names():
            save_checkpoint(
                {**self.model_state(name, epoch + 1, val_result), **extra},
                str(Path(directory) / name),
                is_best=is_best,
                model_name=model_name,
            )

    def model_state(
        self, name: str, epochs: int, val_result: float | None = None
    ) -> dict[str, Any]:
        """Returns a model with its optimizer and schedule, as checkpoints hold them."""
        model, optim, sched = self.parts_of(name)
        return {
            "state_dict": model.state_dict(),
            "epoch": epochs,
            "optimizer": None if optim is None else optim.state_dict(),
            "scheduler": None if sched is None else sched.state_dict(),
            "val_result": val_result,
        }

    def extra_entries(self) -> dict[str, Any]:
        """Returns what checkpoints hold beside the entries of the public format."""
        return {}

    def after_resuming(self, path: Path, checkpoint: dict[str, Any]) -> None:
        """Called for each checkpoint that training goes on from, once it is loaded."""

    def parts_of(self, name: str) -> tuple[nn.Module, Any, Any]:
        """Returns a model, its optimizer and its schedule."""
        return self._models[name], self._optims[name], self._scheds[name]

    def made_by(self) -> dict[str, Any] | None:
        """Returns what makes this trainer's numbers (`dassl.engine.identity`); None: not known."""
        return None

    def weights_used(self) -> dict[str, str] | None:
        """Returns {"name", "sha256"} of the pretrained weights behind the models, if there are."""
        return None

    def resume_model_if_exist(self, directory: str) -> int:
        """Continues from the latest checkpoint in `directory`; returns the epochs finished."""
        names = self.get_model_names()
        if not all((Path(directory) / name).is_dir() for name in names):
            logger.info("No checkpoint found, train from scratch")
            return 0
        logger.info(f"Found checkpoint at {directory} (will resume training)")
        found = {name: newest_checkpoint(Path(directory) / name) for name in names}
        start_epoch = min(checkpoint["epoch"] for _, checkpoint in found.values())
        for name, (path, checkpoint) in found.items():
            if checkpoint["epoch"] != start_epoch:  # the newest of another model is damaged
                path = checkpoint_path(Path(directory) / name, start_epoch)
                checkpoint = load_checkpoint(str(path))
            logger.info(f'Loading checkpoint from "{path}"')
            if (now := self.made_by()) is not None:
                identity.check_same_run(checkpoint.get(identity.KEY), now, path)
            restore_checkpoint(checkpoint, path, *self.parts_of(name))
            logger.info(f"Previous epoch: {start_epoch}")
            self.after_resuming(path, checkpoint)
        self.model_epoch = start_epoch
        return start_epoch

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads every registered model from `<directory>/<name>/`, as evaluation needs it.

        Args:
            directory: output folder of a training run; empty: nothing is loaded.
            epoch: load `model.pth.tar-<epoch>`; None: `model-best.pth.tar`, or the last epoch's if
                there is none.

        Raises:
            MissingFileError: there is no such file; the message lists the epochs there are.
            CheckpointError: the file does not fit the model.
        """
        if not directory:
            logger.info(
                "Note that load_model() is skipped as no pretrained model is given "
                "(ignore this if it's done on purpose)"
            )
            return
        for name in self.tested_model_names():
            path = checkpoint_path(Path(directory).expanduser() / name, epoch)
            checkpoint = load_checkpoint(str(path))
            check_form(checkpoint, path)
            if epoch is not None and checkpoint["epoch"] != epoch:
                raise CheckpointError(
                    f"{path} holds the weights after epoch {checkpoint['epoch']}: its name is wrong"
                )
            logger.info(f'Loading weights to {name} from "{path}" (epoch = {checkpoint["epoch"]})')
            if (now := self.made_by()) is not None:
                identity.check_usable(checkpoint.get(identity.KEY), now, path)
            check_finite(checkpoint["state_dict"], path, self._models[name].state_dict())
            try:
                self.load_weights(name, checkpoint["state_dict"])
            except RuntimeError as error:
                raise CheckpointError(f"{path} does not fit {name}: {error}") from None
            self.model_epoch = checkpoint["epoch"]
            made_by = checkpoint.get(identity.KEY)
            self.learned_by = made_by if isinstance(made_by, dict) else {}

    def load_weights(self, name: str, state_dict: dict[str, Tensor]) -> None:
        """Copies a checkpoint's state dict into the model called `name`."""
        self._models[name].load_state_dict(state_dict)

    # --- TensorBoard, and what stands beside it ---------------------------------------------------

    def init_writer(self, log_dir: str) -> None:
        """Opens the TensorBoard log, unless one is open."""
        if self._writer is not None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.warning(
                "TensorBoard is not installed, so nothing is written for it (pip install it)"
            )
            return
        logger.info(f"Initialize tensorboard (log_dir={log_dir})")
        self._writer = SummaryWriter(log_dir=log_dir)

    def flush_writer(self) -> None:
        for writer in filter(None, (self._writer, self._wandb)):
            writer.flush()

    def close_writer(self, exit_code: int = 0) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.close(exit_code)
        self._writer = self._wandb = None

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        for writer in filter(None, (self._writer, self._wandb)):
            writer.add_scalar(tag, scalar_value, global_step)

    # --- the loop and its hooks -------------------------------------------------------------------

    def train(self, start_epoch: int, max_epoch: int) -> float | None:
        """Trains epochs `start_epoch` .. `max_epoch - 1`.

        Returns:
            The accuracy in per cent of the evaluation at the end; None if there was none.
        """
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            self.begin_epoch()
            self.run_epoch()
            self.after_epoch()
            self.end_epoch()
        self.after_train()
        return self.last_accuracy

    def resume(self) -> None:
        """Goes back to where an interrupted training stopped; called once, before `train`."""

    def before_train(self) -> None:
        pass

    def after_train(self) -> None:
        pass

    def before_epoch(self) -> None:
        pass

    def after_epoch(self) -> None:
        pass

    def begin_epoch(self) -> None:
        """Called between `before_epoch` and `run_epoch`: no hook for methods."""

    def end_epoch(self) -> None:
        """Called after `after_epoch`: no hook for methods."""

    def run_epoch(self) -> None:
        raise NotImplementedError

    def test(self) -> float:
        raise NotImplementedError

    def parse_batch_train(self, batch: dict[str, Any]) -> Any:
        raise NotImplementedError

    def parse_batch_test(self, batch: dict[str, Any]) -> Any:
        raise NotImplementedError

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float | Tensor]:
        raise NotImplementedError

    def model_inference(self, input: Any) -> Tensor:
        raise NotImplementedError

    def read_reports(self) -> None:
        """Reads what steps have reported and a GPU still holds; raises NonFiniteLossError."""

    # --- one step ---------------------------------------------------------------------------------

    def detect_anomaly(self, loss: Tensor | float) -> None:
        """Raises NonFiniteLossError (a FloatingPointError) if the loss is infinite or NaN."""
        finite = torch.isfinite(loss).all() if isinstance(loss, Tensor) else math.isfinite(loss)
        if not finite:
            raise NonFiniteLossError(
                f"the loss is infinite or NaN in epoch {self.epoch + 1} of {self.max_epoch}, batch "
                f"{self.batch_idx + 1} of {self.num_batches}, precision {precision_of(self)}. "
                "Try a smaller OPTIM.LR or full precision (PREC fp32)."
            )

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: Tensor, names: str | list[str] | None = None) -> None:
        """One optimizer step on `loss`."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def prograd_backward_and_update(
        self,
        loss_a: Tensor,
        loss_b: Tensor,
        lambda_: float = 1,
        names: str | list[str] | None = None,
    ) -> None:
        """One optimizer step on `loss_a` that does not work against `loss_b`.

        Trainers that were written for ProGrad's own Dassl call it (arXiv 2205.14865, section 3.2).
        """
        models = (self._models[name] for name in self.get_model_names(names))
        learned = [p for model in models for p in model.parameters() if p.requires_grad]
        self.model_zero_grad(names)
        self.detect_anomaly(loss_b)
        general = torch.autograd.grad(loss_b, learned, retain_graph=True, allow_unused=True)
        self.model_backward(loss_a)
        for parameter, along in zip(learned, general):
            if parameter.grad is not None and along is not None:
                parameter.grad = aligned(parameter.grad, along, lambda_)
        self.model_update(names)


def checkpoint_path(folder: Path, epoch: int | None) -> Path:
    """Returns the file of an epoch; for None, of the best model or else of the last epoch.

    Raises:
        MissingFileError: it does not exist; the message lists what does.
    """
    path = folder / (BEST_FILE if epoch is None else f"model.pth.tar-{epoch}")
    if path.is_file():
        return path
    epochs = saved_epochs(folder)
    if epochs and epoch is None:
        logger.info(f"There is no {path.name}; the last epoch, {max(epochs)}, is taken")
        return folder / f"model.pth.tar-{max(epochs)}"
    if not epochs:
        hint = "the folder holds no checkpoint of an epoch"
    else:
        hint = f"choose one of {', '.join(map(str, epochs))}"
    raise MissingFileError(f'Model not found at "{path}": {hint}')
