"""What every method that learns prompts for a frozen CLIP shares: precision, step, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import CheckpointError, load_pretrained_weights
from dassl.utils.errors import not_one_of
from trainers.clip_trainer import CLIPTrainer
from trainers.clip_utils import CLIP, PRECISIONS, resolve_precision
from trainers.image_encoder import ImageEncoder, normalize
from trainers.step_graph import Passes, StepGraph

__all__ = ["CustomCLIP", "PromptTrainer", "normalize"]


class PromptTrainer(CLIPTrainer):
    """Trains `self.model.prompt_learner` by gradient descent; everything else stays as it is.

    A subclass sets `config_node` and defines `build_custom_clip(clip_model)`; `compute_loss` and
    `summarize` may be overridden.

    Precision (TRAINER.<METHOD>.PREC): fp16 keeps the frozen encoders in half precision; amp runs
    them under autocast with a scaled loss; in both, the learned parameters and the optimizer's
    state are float32. On a CPU everything is float32.

    On a GPU the forward and backward pass is replayed as a CUDA graph (`step_graph`) if the class
    says `capturable_step = True`: that its model and `compute_loss` draw no random numbers, read
    nothing back from the GPU, and depend on nothing that changes between steps but the batch and
    the learned parameters. A class says so itself: a subclass, which may do other things, must
    repeat it. Its model has a method `step_constants`, as `CustomCLIP` has.
    """

    config_node = ""  # the method's settings are in TRAINER.<config_node>
    capturable_step = False

    @classmethod
    def settings(cls, cfg: CfgNode) -> CfgNode:
        return cfg.TRAINER[cls.config_node]

    @classmethod
    def config_problems(cls, cfg: CfgNode) -> list[str]:
        settings, key = cls.settings(cfg), f"TRAINER.{cls.config_node}"
        problems = super().config_problems(cfg)
        if settings.PREC not in PRECISIONS:
            problems.append(not_one_of(f"{key}.PREC", settings.PREC, PRECISIONS))
        if settings.N_CTX < 1 and not settings.CTX_INIT:
            problems.append(f"{key}.N_CTX is {settings.N_CTX}; expected 1 or more.")
        return problems

    def build_custom_clip(self, clip_model: CLIP) -> nn.Module:
        """Returns the model: a module with a part `prompt_learner`, images → logits."""
        raise NotImplementedError

    def build_model(self) -> None:
        cfg = self.cfg
        self.precision = resolve_precision(
            self.settings(cfg).PREC, self.device, f"TRAINER.{self.config_node}.PREC"
        )
        clip_model = self.load_clip()
        print("Building custom CLIP")
        self.model = self.build_custom_clip(clip_model)
        print("Turning off gradients in both the image and the text encoder")
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        sched = build_lr_scheduler(optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, optim, sched)
        self.optim, self.sched = optim, sched
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "amp")

    def autocast(self) -> AbstractContextManager:
        """Half precision where it is safe, with amp; nothing otherwise."""
        if self.precision != "amp":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.float16)

    def compute_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C) and labels (B,)."""
        return F.cross_entropy(logits, label)

    def summarize(self, loss: Tensor, logits: Tensor, label: Tensor) -> dict[str, float | Tensor]:
        """Returns what the log shows of a step: numbers, or tensors of one element.

        A tensor on a GPU is read with the next line of the log; `item()` would wait for the step.
        """
        return {"loss": loss}

    def passes(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Forward and backward pass: loss () and logits (B, C); adds to gradients."""
        with self.autocast():
            logits = self.model(image)
            loss = self.compute_loss(logits, label)
        self.scaler.scale(loss).backward()  # the scaler does nothing unless precision is amp
        return loss.detach(), logits.detach()

    def forward_backward(self, batch: dict) -> dict[str, float | Tensor]:
        image, label = self.parse_batch_train(batch)
        self.optim.zero_grad()
        loss, logits = self._step_passes()(image, label)
        self.check_loss(loss)
        self.scaler.step(self.optim)  # amp: waits for the GPU, as it may have to skip the step
        self.scaler.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return self.summarize(loss, logits, label)

    def captures_step(self) -> bool:
        """Whether steps may be replayed as a CUDA graph."""
        says_so = vars(type(self)).get("capturable_step", False)
        # Under autocast, casts of weights are cached for a step, which no graph may rely on.
        return (
            says_so
            and self.device.type == "cuda"
            and self.precision != "amp"
            and self.cfg.MODEL.CUDA_GRAPH
        )

    def _step_passes(self) -> Passes:
        if not self.captures_step():
            return self.passes
        if "_step_graph" not in self.__dict__:
            self._step_graph = StepGraph(self.passes, self.model)
        return self._step_graph

    def after_train(self) -> None:
        self.__dict__.pop("_step_graph", None)  # frees its memory
        super().after_train()

    def model_inference(self, input: Tensor) -> Tensor:
        with self.autocast():
            return self.model(input)

    def frozen_encoder(self) -> ImageEncoder:
        return self.model.frozen_image_encoder

    def encode_images(self, images: Tensor) -> Tensor:
        with self.autocast():
            return super().encode_images(images)

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor]:
        image, label = batch["img"], batch["label"]
        return (
            image.to(self.device, non_blocking=True),
            label.to(self.device, non_blocking=True),
        )

    def load_weights(self, name: str, state_dict: dict[str, Tensor]) -> None:
        """Copies learned parameters; the class tokens stay those of the classes at hand.

        Raises:
            CheckpointError: another method wrote the file, or its shapes differ.
        """
        model = self._models[name]
        learned = {k: v for k, v in state_dict.items() if k not in dict(model.named_buffers())}
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
        model.load_state_dict(learned, strict=False)

    def progress(self) -> dict:
        return {**super().progress(), "scaler": self.scaler.state_dict()}

    def set_progress(self, state: dict) -> None:
        super().set_progress(state)
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        super().load_model(directory, epoch)


class CustomCLIP(nn.Module):
    """A frozen CLIP whose text side is learned: what the methods' models have in common.

    Args:
        clip_model: the frozen CLIP.
        prompt_learner: builds the prompts.
        text_encoder: turns them into features.
    """

    def __init__(self, clip_model: CLIP, prompt_learner: nn.Module, text_encoder: Callable) -> None:
        super().__init__()
        self.prompt_learner = prompt_learner
        self.text_encoder = text_encoder
        self.image_encoder = clip_model.visual
        self.frozen_image_encoder = ImageEncoder(clip_model.visual)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def train(self, mode: bool = True) -> CustomCLIP:
        """Only the prompt learner has a training mode; the frozen encoders stay in evaluation."""
        super().train(False)
        self.prompt_learner.train(mode)
        self.training = mode
        return self

    def step_constants(self) -> tuple[object, ...]:
        """Returns what a training step reads beside its batch, parameters and buffers.

        A CUDA graph keeps hold of it, and is made anew when another object has taken its place.
        """
        encoders = (self.text_encoder.folded, self.frozen_image_encoder.folded)
        return (*(folded.value for folded in encoders), self.prompt_learner.layout)

    def encode_image(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W), or the encoder's features of them (B, E) → (B, E) of length 1."""
        with torch.no_grad():  # frozen, and no prompt reaches it
            if image.dim() == 4:  # else encoded before, see trainers.image_features
                image = self.frozen_image_encoder(image.to(self.dtype))
            return normalize(image)


def _listed(parameters: dict) -> str:
    return ", ".join(sorted(parameters)) or "nothing"
