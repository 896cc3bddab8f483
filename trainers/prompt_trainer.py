"""What every method that learns prompts for a frozen CLIP shares: precision, step, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from dassl.config import mark_not_determining
from dassl.engine import identity
from dassl.engine.step_graph import Passes, StepGraph
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import CheckpointError, load_checkpoint, load_pretrained_weights
from dassl.utils.checkpoint import check_finite
from dassl.utils.device import is_full_gpu
from dassl.utils.errors import not_one_of
from dassl.utils.logger import get_logger
from encoders.image import ImageEncoder
from encoders.load import PRECISIONS
from encoders.openai import CLIP
from encoders.text import TextEncoder
from trainers.clip_trainer import CLIPTrainer
from trainers.custom_clip import CustomCLIP, context_problem

logger = get_logger(__name__)

T = TypeVar("T")


def extend_cfg(cfg: CfgNode) -> None:
    # On a GPU, replay steps as a CUDA graph where a trainer allows it; plain steps otherwise.
    cfg.MODEL.CUDA_GRAPH = True
    mark_not_determining(cfg, "MODEL.CUDA_GRAPH")


class PromptTrainer(CLIPTrainer):
    """Trains `self.model.learned` by gradient descent; everything else stays as it is.

    A subclass names its `config_node` and `custom_clip_class`; `compute_loss` and `summarize` may
    be overridden, as may `build_custom_clip` where the model is of another kind: a module with a
    part `prompt_learner`, which is learned, images → logits.

    Precision (TRAINER.<METHOD>.PREC): fp16 keeps the frozen encoders in half precision; amp runs
    them under autocast with a scaled loss; in both, the learned parameters and the optimizer's
    state are float32. On a CPU everything is float32.

    Unless MODEL.CUDA_GRAPH is False, a GPU replays the forward and backward pass as a CUDA graph
    (`dassl.engine.step_graph`) if the class says `@frozen_clip(..., capturable_step=True)`. Its
    model then has a method `step_constants`, as `CustomCLIP` has.
    """

    config_node = ""  # the method's settings are in TRAINER.<config_node>
    custom_clip_class: type[CustomCLIP] = CustomCLIP
    checkpoint_folder = "prompt_learner"  # in the output folder
    frozen_names: tuple[str, ...] = ()  # beginnings of entries of public files that nobody learns

    @classmethod
    def settings(cls, cfg: CfgNode) -> CfgNode:
        return cfg.TRAINER[cls.config_node]

    @classmethod
    def config_problems(cls, cfg: CfgNode) -> list[str]:
        settings, key = cls.settings(cfg), f"TRAINER.{cls.config_node}"
        problems = super().config_problems(cfg)
        if settings.PREC not in PRECISIONS:
            problems.append(not_one_of(f"{key}.PREC", settings.PREC, PRECISIONS))
        problem = context_problem(settings.get("CTX_INIT", ""))
        if problem:
            problems.append(f"{key}.CTX_INIT is {settings.CTX_INIT!r}{problem}")
        return problems + cls.context_problems(settings, key)

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        """Returns what is wrong with the numbers of vectors; `key` is what the node is called."""
        if settings.N_CTX < 1 and not settings.CTX_INIT:
            return [f"{key}.N_CTX is {settings.N_CTX}; expected 1 or more."]
        return []

    def build_custom_clip(self, clip_model: CLIP) -> nn.Module:
        return self.custom_clip_class(self.cfg, self.dm.dataset.classnames, clip_model)

    def build_model(self) -> None:
        cfg = self.cfg
        self.precision = resolve_precision(
            self.settings(cfg).PREC, self.device, f"TRAINER.{self.config_node}.PREC"
        )
        clip_model = self.load_clip()
        logger.info("Building custom CLIP")
        self.model = self.build_custom_clip(clip_model)
        logger.info("Turning off gradients in both the image and the text encoder")
        if cfg.MODEL.INIT_WEIGHTS:
            self.load_initial_weights(cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.learned, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.checkpoint_folder, self.learned, self.optim, self.sched)
        self._step_graphs: dict[tuple, StepGraph] = {}
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "amp")

    @property
    def learned(self) -> nn.Module:
        """What the optimizer changes and checkpoints hold."""
        return getattr(self.model, "learned", self.model.prompt_learner)

    def load_initial_weights(self, path: str) -> None:
        """Starts from learned parameters of a file; the class tokens stay those at hand.

        Raises:
            CheckpointError: none fits, or they are contexts of other classes.
        """
        checkpoint = load_checkpoint(path)
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get("state_dict"), dict):
            check_finite(checkpoint["state_dict"], path, self.learned.state_dict())
            self._check_classes(self.model.prompt_learner, checkpoint["state_dict"], path)
            now, then = self.made_by(), checkpoint.get(identity.KEY)
            if isinstance(then, dict) and (other := identity.other_weights(then, now)):
                logger.warning(f"Note: {path}: {other[0]}")
        buffers = dict(self.learned.named_buffers())
        load_pretrained_weights(self.learned, path, but=buffers)

    @staticmethod
    def _check_classes(learner: nn.Module, state: dict[str, Tensor], where: str) -> None:
        """Raises CheckpointError for class-specific contexts that are of other classes.

        A file has the words of its classes beside their contexts.
        """
        ctx, theirs = state.get("ctx"), state.get("token_suffix")
        ours = getattr(learner, "token_suffix", None)
        if ctx is None or ctx.dim() != 3 or theirs is None or ours is None:
            return
        if not getattr(learner, "class_specific", True):  # several contexts for all classes
            return
        theirs, ours = theirs.float(), ours.float().cpu()
        shorter = min(theirs.shape[1], ours.shape[1])
        same = len(theirs) == len(ours) and theirs.shape[2] == ours.shape[2]
        if not same or not torch.allclose(theirs[:, :shorter], ours[:, :shorter], atol=1e-2):
            raise CheckpointError(
                f"{where} holds class-specific contexts, one for each of {len(theirs)} classes, "
                f"and the {len(ours)} classes here are others, or in another order: these "
                "contexts say nothing about them. Evaluate on the classes of the training."
            )

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        super().set_model_mode(mode, names)
        if isinstance(self.model, CustomCLIP):  # lets go of class features that it keeps
            self.model.train(mode == "train")

    def before_train(self) -> None:
        if isinstance(self.model, CustomCLIP):
            logger.info(f"First prompts: {self.model.prompt_learner.first_prompts()}")
        super().before_train()

    def autocast(self) -> AbstractContextManager:
        """Half precision where it is safe, with amp; nothing otherwise."""
        if self.precision != "amp":
            return nullcontext()
        # What casts of weights a step keeps, no graph may rely on in the next.
        keeps = not self.captures_step()
        return torch.autocast(self.device.type, dtype=torch.float16, cache_enabled=keeps)

    def compute_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C) and labels (B,)."""
        return F.cross_entropy(logits, label)

    def summarize(self, loss: Tensor, logits: Tensor, label: Tensor) -> dict[str, float | Tensor]:
        """Returns what the log shows of a step: numbers, or tensors of one element.

        A tensor on a GPU is read with the next line of the log; `item()` would wait for the step.
        """
        return {"loss": loss}

    def passes(
        self, forward: Callable[..., Any], inputs: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Forward and backward pass: loss () and logits (B, C); adds to gradients.

        Args:
            forward: the model on images, or on their features.
            inputs: what it takes.
            label: (B,).
        """
        with self.autocast():
            if isinstance(self.model, CustomCLIP) and hasattr(self.model, "loss"):
                loss, logits = forward(inputs, label)
            else:
                logits = forward(inputs)
                loss = self.compute_loss(logits, label)
        self.scaler.scale(loss).backward()  # the scaler does nothing unless precision is amp
        return loss.detach(), logits.detach()

    def forward_backward(self, batch: dict) -> dict[str, float | Tensor]:
        forward = self.model.from_features if "features" in batch else self.model
        inputs, label = self.parse_batch_train(batch)
        loss, logits = self.descend(partial(self.passes, forward), inputs, label)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return self.summarize(loss, logits, label)

    def descend(
        self, passes: partial, inputs: Tensor, label: Tensor, *names: str, checked: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Steps down the gradients that `passes` leaves; returns its loss and logits.

        Args:
            passes: as of a `StepGraph`, which replays them where that is possible.
            inputs, label: what they take.
            names: of the models that step; none: all.
            checked: whether a loss that is no number is an error.
        """

        def work() -> tuple[Tensor, Tensor]:
            for optim in self._optims.values():
                optim.zero_grad()
            return self._step_passes(passes)(inputs, label)

        loss, logits = self._fitting(work)
        if checked:
            self.check_loss(loss)
        for name in names or self._optims:
            # With amp, it reads one number, as it may have to skip the step.
            self.scaler.step(self._optims[name])
        self.scaler.update()
        return loss, logits

    def _fitting(self, work: Callable[[], T]) -> T:
        """Does work; where memory is full, again with fewer prompts at a time while that helps.

        Raises:
            RuntimeError: it does not.
        """
        while True:
            try:
                return work()
            except RuntimeError as error:
                encoder = getattr(self.model, "text_encoder", None)
                can_shrink = is_full_gpu(error) and isinstance(encoder, TextEncoder)
                if not (can_shrink and encoder.shrink()):
                    raise
            # Only here nothing holds what the failed work had made.
            logger.info("The memory is full: from now on half as many tokens are encoded at a time")
            torch.cuda.empty_cache()

    def captures_step(self) -> bool:
        """Whether steps may be replayed as a CUDA graph."""
        promise = self.promise()
        return (
            promise is not None
            and promise.capturable_step
            and self.device.type == "cuda"
            and self.cfg.MODEL.CUDA_GRAPH
        )

    def _step_passes(self, passes: partial) -> Passes:
        if not self.captures_step():
            return passes
        key = (passes.func, passes.args)
        if key not in self._step_graphs:
            amp = self.precision == "amp"
            self._step_graphs[key] = StepGraph(passes, self.model, autocast=amp)
        return self._step_graphs[key]

    def after_train(self) -> None:
        self._step_graphs.clear()  # frees their memory
        super().after_train()

    def model_inference(self, input: Tensor) -> Tensor:
        with self.autocast():
            return self._fitting(lambda: self.model(input))

    def feature_inference(self, features: Tensor) -> Tensor:
        with self.autocast():
            return self._fitting(lambda: self.model.from_features(features))

    def frozen_encoder(self) -> ImageEncoder:
        return self.model.frozen_image_encoder

    def encode_images(self, images: Tensor) -> Tensor:
        with self.autocast():
            return super().encode_images(images)

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Returns images, or their features, and labels on the device."""
        inputs, label = batch["features" if "features" in batch else "img"], batch["label"]
        return (
            inputs.to(self.device, non_blocking=True),
            label.to(self.device, non_blocking=True),
        )

    def load_weights(self, name: str, state_dict: dict[str, Tensor]) -> None:
        """Copies learned parameters; the class tokens stay those of the classes at hand.

        Raises:
            CheckpointError: another method wrote the file, or its shapes differ.
        """
        model = self._models[name]
        left_out = {*dict(model.named_buffers()), *self.frozen_entries(state_dict)}
        learned = {k: v for k, v in state_dict.items() if k not in left_out}
        own = dict(model.named_parameters())
        if learned.keys() != own.keys():
            raise CheckpointError(
                f"the checkpoint holds {_listed(learned)}, but {self.cfg.TRAINER.NAME} learns "
                f"{_listed(own)}: another method wrote it. Set --trainer to that method."
            )
        wrong = [
            f"{k} has shape {tuple(v.shape)} in the checkpoint and {tuple(own[k].shape)} here"
            for k, v in learned.items()
            if v.shape != own[k].shape
        ]
        if wrong:
            raise CheckpointError(
                f"{'; '.join(wrong)}: set TRAINER.{self.config_node}.N_CTX or CTX_INIT, the "
                "classes (class-specific context has one set of vectors a class) and the backbone "
                "as they were in training."
            )
        self._check_classes(model, state_dict, "the checkpoint")
        model.load_state_dict(learned, strict=False)

    def frozen_entries(self, state_dict: dict[str, Tensor]) -> list[str]:
        """Returns which entries of a checkpoint are weights that nobody learns."""
        return [k for k in state_dict if k.startswith(self.frozen_names)]

    def progress(self) -> dict:
        return {**super().progress(), "scaler": self.scaler.state_dict()}

    def set_progress(self, state: dict) -> None:
        super().set_progress(state)
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        if not directory:
            logger.info("Note that load_model() is skipped as no pretrained model is given")
            return
        super().load_model(directory, epoch)


def resolve_precision(prec: str, device: torch.device, key: str) -> str:
    """Returns the precision to compute in: what was asked for on a GPU, fp32 on a CPU."""
    if prec == "fp32" or device.type == "cuda":
        return prec
    logger.info(f"{key} is {prec}, which needs a GPU; computing in fp32 on the CPU")
    return "fp32"


def _listed(parameters: dict) -> str:
    return ", ".join(sorted(parameters)) or "nothing"
