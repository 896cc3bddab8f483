"""TCP: textual-based class-aware prompt tuning (Yao et al., CVPR 2024, arXiv 2311.18231).

KgCoOp whose context knows the class. The textual knowledge embedding, two layers with a bottleneck,
maps the class feature w_i^clip of the data set's hand-written prompt to M vectors of class i:

    T_i = W_up act(W_down w_i^clip)

They take the place of what the first 8 blocks of the text tower made of the context, so that the
rest of the tower makes w_i of them. L = L_ce + lambda L_kg, with L_kg the mean over classes of
1 - cos(w_i, w_i^clip), as in KgCoOp (arXiv 2303.13283).

Shapes: B images, C classes, M context vectors, D width of the text tower, E embedding size.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import ConfigError
from encoders.openai import CLIP
from encoders.prompt_tree import ForkedTree
from encoders.tower import normalize, without_autocast
from trainers.clip_trainer import frozen_clip
from trainers.custom_clip import BasePromptLearner
from trainers.hand_written import GuidedTrainer, KnowledgeGuidedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.TCP = CN()
    cfg.TRAINER.TCP.N_CTX = 4  # number of context vectors, M
    cfg.TRAINER.TCP.CTX_INIT = "a photo of a"  # words to start from; empty: random
    cfg.TRAINER.TCP.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.TCP.W = 8.0  # weight of the guidance, lambda
    cfg.TRAINER.TCP.DEPTH = 8  # blocks that read the shared context, before the class's own enters
    cfg.TRAINER.TCP.HIDDEN = 128  # size of the bottleneck, D_mid


class QuickGELU(nn.Module):
    """CLIP's activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class PromptLearner(BasePromptLearner):
    """A context for all classes, and what makes a class's own of its hand-written prompt."""

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        settings, n_blocks = cfg.TRAINER.TCP, len(clip_model.transformer.resblocks)
        if settings.DEPTH >= n_blocks:
            raise ConfigError(
                f"TRAINER.TCP.DEPTH is {settings.DEPTH}, but of the text tower's {n_blocks} blocks "
                f"one at least reads the class's own context: set 1 to {n_blocks - 1}."
            )
        super().__init__(settings, classnames, clip_model)
        sequences = [self.sequence(c) for c in range(self.n_cls)]
        self.tree = ForkedTree(sequences, self.n_ctx, settings.DEPTH)
        width, size = self.ctx.shape[-1], clip_model.text_projection.shape[1]
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(size, settings.HIDDEN),
                act=QuickGELU(),
                linear2=nn.Linear(settings.HIDDEN, self.n_ctx * width),
            )
        )

    def class_aware(self, hand_written: Tensor) -> Tensor:
        """Class features (C, E) of length 1 → each class's vectors T, (C * M, D)."""
        with without_autocast(hand_written):
            return self.meta_net(hand_written).view(-1, self.ctx.shape[-1])


class CustomCLIP(KnowledgeGuidedCLIP):
    """CLIP whose class prompts are learned, and depend on what it knows of the class."""

    config_node = "TCP"
    prompt_learner_class = PromptLearner

    def build_prompt_learner(self, *args: Any) -> BasePromptLearner:
        return self.prompt_learner_class(*args)

    def encode_prompts(self) -> Tensor:
        learner = self.prompt_learner
        own = learner.class_aware(self.hand_written)
        return normalize(self.text_encoder(learner.context(), learner.tree, own=own)[0])


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True, capturable_step=True)
class TCP(GuidedTrainer):
    """Textual-based class-aware prompt tuning, https://arxiv.org/abs/2311.18231."""

    config_node = "TCP"
    custom_clip_class = CustomCLIP

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        problems = super().context_problems(settings, key)
        for name in ("DEPTH", "HIDDEN"):
            if settings[name] < 1:
                problems.append(f"{key}.{name} is {settings[name]}; expected 1 or more.")
        return problems
