"""What else of CLIP could be learned: the baselines of CoOp's table 5 (arXiv 2109.01134).

The prompts are hand-written, as zero-shot CLIP's. Learned by cross-entropy is, in their place,

    FineTuneImage    the image encoder f                p ~ exp(cos(w_i, f(x)) / tau)
    TransformText    a layer A on text features         p ~ exp(cos(A w_i, f(x)) / tau)
    TransformImage   a layer A on image features        p ~ exp(cos(w_i, A f(x)) / tau)
    BiasText         a bias b of all text features      p ~ exp(cos(w_i + b, f(x)) / tau)

with w_i and f(x) of length 1. A starts as the identity and b as zero, so all start as zero-shot
CLIP. The paper's words on them could not be had; docs/methods.md says what is our choice.

Shapes: B images, C classes, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from dassl.utils.errors import not_one_of
from encoders.openai import CLIP
from encoders.tower import normalize, without_autocast
from trainers.clip_trainer import frozen_clip
from trainers.custom_clip import cosine_logits
from trainers.hand_written import GuidedCLIP, GuidedTrainer, class_prompts


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.FINETUNE = CN()
    cfg.TRAINER.FINETUNE.PREC = "amp"  # fp16 (not for FineTuneImage), fp32, amp


class Learned(nn.ModuleDict):
    """One module, under the name that it has in checkpoints, and what is said of the prompts."""

    def __init__(self, name: str, module: nn.Module, prompts: list[str]) -> None:
        super().__init__({name: module})
        self.prompts = prompts

    def first_prompts(self, n: int = 2) -> str:
        return ", ".join(self.prompts[:n])


class Layer(nn.Linear):
    """Features (..., E) → (..., E), a matrix that starts as the identity."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, bias=False)
        nn.init.eye_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        with without_autocast(features):
            return super().forward(features.float())


class Bias(nn.Module):
    """Features (..., E) → (..., E), shifted by a vector that starts as zero."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, features: Tensor) -> Tensor:
        return features.float() + self.bias


class FineTunedCLIP(GuidedCLIP):
    """CLIP with hand-written prompts; `part` is the name of what is learned."""

    part = ""

    def __init__(
        self, cfg: CfgNode, classnames: list[str], clip_model: CLIP, template: str
    ) -> None:
        self.prompts = class_prompts(classnames, template)
        super().__init__(cfg, classnames, clip_model, template)

    def build_prompt_learner(
        self, cfg: CfgNode, classnames: list[str], clip_model: CLIP
    ) -> Learned:
        return Learned(self.part, self.build_part(clip_model), self.prompts)

    def build_part(self, clip_model: CLIP) -> nn.Module:
        return Layer(clip_model.visual.output_dim)

    def learned_part(self, inputs: Tensor) -> Tensor:
        return self.learned[self.part](inputs)

    def encode_prompts(self) -> Tensor:
        """Returns the hand-written prompts' features w, (C, E), of length 1."""
        return self.hand_written


class WithTextLayer(FineTunedCLIP):
    part = "text_layer"

    def encode_prompts(self) -> Tensor:
        return normalize(self.learned_part(self.hand_written))


class WithTextBias(WithTextLayer):
    part = "text_bias"

    def build_part(self, clip_model: CLIP) -> nn.Module:
        return Bias(clip_model.visual.output_dim)


class WithImageLayer(FineTunedCLIP):
    part = "image_layer"

    def logits(self, image_features: Tensor) -> Tensor:
        image_features = normalize(self.learned_part(image_features))
        return cosine_logits(self.logit_scale, image_features, self.text_features())


class WithImageEncoder(FineTunedCLIP):
    """The whole image tower is learned, in float32; statistics of batch norms stay CLIP's."""

    part = "image_encoder"

    def build_part(self, clip_model: CLIP) -> nn.Module:
        return clip_model.visual.float().requires_grad_(True)

    def train(self, mode: bool = True) -> WithImageEncoder:
        super().train(mode)
        self.learned.eval()
        return self

    def encode_image(self, image: Tensor) -> Tensor:
        return normalize(self.learned_part(image.float()))


class FineTuningTrainer(GuidedTrainer):
    """What the four have in common: the prompts that they start from are not theirs to choose."""

    config_node = "FINETUNE"

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        return []


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True)
class TransformText(FineTuningTrainer):
    """A transformation layer behind the text encoder."""

    custom_clip_class = WithTextLayer
    checkpoint_folder = "text_layer"


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True)
class TransformImage(FineTuningTrainer):
    """A transformation layer behind the image encoder."""

    custom_clip_class = WithImageLayer
    checkpoint_folder = "image_layer"


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True)
class BiasText(FineTuningTrainer):
    """A bias behind the text encoder."""

    custom_clip_class = WithTextBias
    checkpoint_folder = "text_bias"


@TRAINER_REGISTRY.register()
class FineTuneImage(FineTuningTrainer):
    """The image encoder itself: CLIP is not frozen, so this run has one of its own."""

    custom_clip_class = WithImageEncoder
    checkpoint_folder = "image_encoder"

    @classmethod
    def config_problems(cls, cfg: CfgNode) -> list[str]:
        problems = super().config_problems(cfg)
        if cls.settings(cfg).PREC == "fp16":
            problems.append(
                not_one_of("TRAINER.FINETUNE.PREC", "fp16", ("fp32", "amp"))
                + " Weights of half precision are too coarse to learn."
            )
        return problems
