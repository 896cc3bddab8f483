"""PromptSRC: self-regulating prompts (Khattak et al., ICCV 2023, arXiv 2307.06948).

Deep prompts in both towers, as IVLP, with three regulations. With f_p, g_p and q_p the prompted
model's image features, class features and class probabilities, f, g and q the frozen CLIP's:

- Agreement with the frozen model (section 3.2.1): L = L_ce + l1 |g_p - g| + l2 |f_p - f| + KL,
  with mean absolute differences and KL the mean of q log(q / q_p), as in the public implementation.
- Self-ensembling (section 3.2.2): what is tested is the mean of the prompts at the end of each
  epoch, weighted by a Gaussian over the epochs.
- Textual diversity (section 3.2.3): g is the mean over many templates.

Shapes: B images, C classes, E embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from encoders.openai import CLIP
from trainers.clip_trainer import frozen_clip
from trainers.custom_clip import cosine_logits
from trainers.deep_prompts import VLTrainer
from trainers.hand_written import VLGuidedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.PROMPTSRC = CN()
    cfg.TRAINER.PROMPTSRC.N_CTX_VISION = 4  # vectors a block in the image tower
    cfg.TRAINER.PROMPTSRC.N_CTX_TEXT = 4  # vectors a block in the text tower
    cfg.TRAINER.PROMPTSRC.CTX_INIT = "a photo of a"  # where the first start; empty: at random
    cfg.TRAINER.PROMPTSRC.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION = 9  # blocks with vectors of their own
    cfg.TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT = 9
    cfg.TRAINER.PROMPTSRC.TEXT_LOSS_WEIGHT = 25.0  # l1
    cfg.TRAINER.PROMPTSRC.IMAGE_LOSS_WEIGHT = 10.0  # l2
    cfg.TRAINER.PROMPTSRC.GPA_MEAN = 15.0  # of the Gaussian, in epochs
    cfg.TRAINER.PROMPTSRC.GPA_STD = 1.0


class CustomCLIP(VLGuidedCLIP):
    """CLIP with learned prompts in both towers, which knows what it says without them."""

    config_node = "PROMPTSRC"

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg, classnames, clip_model)
        settings = cfg.TRAINER.PROMPTSRC
        self.text_weight, self.image_weight = settings.TEXT_LOSS_WEIGHT, settings.IMAGE_LOSS_WEIGHT

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if label is None:
            return super().forward(image)
        return self.loss(self.encode_image(image), label, self.frozen_features(image))

    def loss(
        self, image_features: Tensor, label: Tensor, frozen_features: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Image features of the prompted and of the frozen model (B, E) → L, (), and logits."""
        text_features = self.text_features()  # (C, E)
        logits = cosine_logits(self.logit_scale, image_features, text_features)  # (B, C)
        frozen = cosine_logits(self.logit_scale, frozen_features, self.frozen_text_features)
        weights = self.text_weight, self.image_weight
        distance = self.distance(text_features, image_features, frozen_features, weights)
        log_q_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(frozen, dim=1)
        agreement = (log_q.exp() * (log_q - log_q_p)).mean()
        return F.cross_entropy(logits, label) + distance + agreement, logits


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=False, capturable_step=True)
class PromptSRC(VLTrainer):
    """Self-regulating prompts, https://arxiv.org/abs/2307.06948."""

    config_node = "PROMPTSRC"
    custom_clip_class = CustomCLIP
    _ensemble: dict[str, Tensor] | None = None  # the weighted sum of the prompts so far

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        problems = super().context_problems(settings, key)
        if settings.GPA_STD <= 0:
            problems.append(f"{key}.GPA_STD is {settings.GPA_STD}; expected more than 0.")
        return problems

    @torch.no_grad()
    def after_epoch(self) -> None:
        settings = self.settings(self.cfg)
        weights = gaussian_weights(self.max_epoch, settings.GPA_MEAN, settings.GPA_STD)
        prompts = dict(self.learned.named_parameters())
        before = self._ensemble or {}
        self._ensemble = {
            name: before.get(name, 0) + weights[self.epoch] * prompt
            for name, prompt in prompts.items()
        }
        if self.epoch + 1 == self.max_epoch:
            for name, prompt in prompts.items():
                prompt.copy_(self._ensemble[name])
        super().after_epoch()

    def progress(self) -> dict:
        return {**super().progress(), "ensemble": self._ensemble}

    def set_progress(self, state: dict) -> None:
        super().set_progress(state)
        ensemble = state.get("ensemble")
        if ensemble is not None:
            ensemble = {name: value.to(self.device) for name, value in ensemble.items()}
        self._ensemble = ensemble


def gaussian_weights(n_epochs: int, mean: float, std: float) -> list[float]:
    """Returns the weight of each epoch, 1 ... n: a normal density's values there, of sum one.

    Computed from the epoch nearest to the mean, so that all weights are numbers however far it is.
    """
    exponents = [-((epoch - mean) ** 2) / (2 * std**2) for epoch in range(1, n_epochs + 1)]
    values = [math.exp(exponent - max(exponents)) for exponent in exponents]
    return [value / sum(values) for value in values]
