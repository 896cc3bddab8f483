"""PLOT: prompt learning with optimal transport (Chen et al., ICLR 2023, arXiv 2210.01253).

Each class has N prompts, whose features g_n lie on the one side, and an image the features f_m of
its places, m = 1 ... M, on the other. How well they fit is what the best transport between the two
gets, all places and all prompts counting alike (rows of T sum to 1/M, columns to 1/N):

    T* = argmin_T <T, C> - eps H(T),  C_mn = 1 - cos(f_m, g_n)
    p(y = i | x) = softmax_i(sum_mn T*_mn cos(f_m, g_n) / tau)

In the inner loop T* comes from Sinkhorn's iteration (Cuturi, arXiv 1306.0895); in the outer loop
the prompts learn by cross-entropy with T* held fixed (section 3.3).

Shapes: B images, C classes, N prompts a class, M places, V context vectors, E embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from encoders.openai import CLIP
from encoders.tower import normalize, without_autocast
from trainers import custom_clip
from trainers.clip_trainer import frozen_clip
from trainers.custom_clip import SeveralContexts
from trainers.prompt_trainer import PromptTrainer

LEAST_EPS = 0.03  # exp(-2 / eps) and its inverse are float32 numbers


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.PLOT = CN()
    cfg.TRAINER.PLOT.N = 4  # prompts a class
    cfg.TRAINER.PLOT.N_CTX = 16  # context vectors of each, V
    cfg.TRAINER.PLOT.CTX_INIT = ""  # words to start from, if N is 1; empty: random
    cfg.TRAINER.PLOT.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.PLOT.EPS = 0.1  # weight of the entropy
    cfg.TRAINER.PLOT.MAX_ITER = 100  # of Sinkhorn's iteration
    cfg.TRAINER.PLOT.THRESHOLD = 0.01  # a mean change below this ends it


class PromptLearner(SeveralContexts):
    """N contexts; ctx is (N, V, D)."""

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg.TRAINER.PLOT.N, cfg.TRAINER.PLOT, classnames, clip_model)


class CustomCLIP(custom_clip.CustomCLIP):
    """CLIP that sees an image as many places, and a class as several prompts."""

    prompt_learner_class = PromptLearner

    def __init__(self, cfg: CfgNode, *args: Any) -> None:
        super().__init__(cfg, *args)
        settings = cfg.TRAINER.PLOT
        self.transport = (settings.EPS, settings.MAX_ITER, settings.THRESHOLD)

    def encode_prompts(self) -> Tensor:
        """Returns class features (C, N, E), of length 1."""
        learner = self.prompt_learner
        features = self.text_encoder(learner.context(), learner.tree)  # (N, C, E)
        return normalize(features).transpose(0, 1)

    def encode_image(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) → features of their places (B, M, E), of length 1."""
        return normalize(self.frozen_image_encoder.local(image))

    def logits(self, image_features: Tensor) -> Tensor:
        """Features of places (B, M, E) → logits (B, C)."""
        text_features = self.text_features()  # (C, N, E)
        with without_autocast(image_features):
            similarity = torch.einsum("bme,cne->bcmn", image_features, text_features)
            plan = sinkhorn(1 - similarity.detach(), *self.transport)
            return self.logit_scale.exp() * (plan * similarity).sum(dim=(-2, -1))


@torch.no_grad()
def sinkhorn(cost: Tensor, eps: float, max_iter: int, threshold: float) -> Tensor:
    """Returns the plan that moves equal weights on M places to equal weights on N prompts.

    T = diag(r) exp(-C / eps) diag(c), with r and c fitted to the sums of rows and columns by turns.
    Each plan stops for itself, when the mean change of its r is below the threshold: its numbers
    do not depend on what else is computed with it.

    Args:
        cost: C, (..., M, N).
        eps: weight of the entropy.
        max_iter: at most so many turns.
        threshold: of the mean absolute change.
    """
    kernel = torch.exp(-cost / eps)
    m, n = cost.shape[-2:]
    r, c = kernel.new_ones(*cost.shape[:-2], m, 1), kernel.new_ones(*cost.shape[:-2], n, 1)
    active = torch.ones_like(r[..., :1, :], dtype=torch.bool)  # (..., 1, 1)
    # What is traced or recorded is done again without an `if`.
    recorded = torch.compiler.is_compiling() or (
        cost.is_cuda and torch.cuda.is_current_stream_capturing()
    )
    for _ in range(max_iter):
        new_r = 1 / (m * (kernel @ c))
        new_c = 1 / (n * (kernel.mT @ new_r))
        change = (new_r - r).abs().mean(dim=-2, keepdim=True)
        r, c = torch.where(active, new_r, r), torch.where(active, new_c, c)
        active = active & (change >= threshold)
        if not recorded and not active.any():
            break
    return r * kernel * c.mT


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=False, capturable_step=True)
class PLOT(PromptTrainer):
    """Prompt learning with optimal transport, https://arxiv.org/abs/2210.01253."""

    config_node = "PLOT"
    custom_clip_class = CustomCLIP

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        problems = super().context_problems(settings, key)
        for name, least in {"N": 1, "MAX_ITER": 1, "THRESHOLD": 0, "EPS": LEAST_EPS}.items():
            if not settings[name] >= least:
                problems.append(f"{key}.{name} is {settings[name]}; expected {least} or more.")
        if settings.CTX_INIT and settings.N > 1:
            problems.append(
                f"{key}.CTX_INIT is {settings.CTX_INIT!r}, but {settings.N} prompts that start "
                "alike stay alike: leave it empty ('') to start at random, or set N to 1."
            )
        return problems
