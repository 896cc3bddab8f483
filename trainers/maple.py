"""MaPLe: multi-modal prompt learning (Khattak et al., CVPR 2023, arXiv 2210.03117).

Deep prompts in both towers, and the visual ones are not learned on their own: a coupling function
makes them of the words', P~_i = F_i(P_i), a linear layer for each of the J blocks (section 3.2), so
that both towers are learned together.

Shapes: B images, C classes, M context vectors, J blocks with prompts, D width of the text tower,
V width of the image tower, E embedding size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from encoders.openai import CLIP
from encoders.tower import normalize, without_autocast
from trainers import custom_clip
from trainers.clip_trainer import frozen_clip
from trainers.deep_prompts import (
    VLTrainer,
    check_depth,
    out_of_bounds,
    random_vectors,
    too_few_words,
    visual_transformer,
)


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.MAPLE = CN()
    cfg.TRAINER.MAPLE.N_CTX = 2  # vectors a block, M
    cfg.TRAINER.MAPLE.CTX_INIT = "a photo of a"  # words that the first start from; empty: random
    cfg.TRAINER.MAPLE.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.MAPLE.PROMPT_DEPTH = 9  # blocks with vectors of their own, J


class PromptLearner(custom_clip.BasePromptLearner):
    """Language prompts P_1 ... P_J and the coupling functions F_1 ... F_J.

    Parameters, under the names that public checkpoints have:
        ctx: (M, D), P_1.
        compound_prompts_text: P_2 ... P_J, each (M, D).
        proj, compound_prompt_projections: F_1, and F_2 ... F_J, which start as copies of one layer.
    """

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        settings, image_tower = cfg.TRAINER.MAPLE, visual_transformer(clip_model)
        for tower in (clip_model.transformer, image_tower):
            check_depth(tower, "TRAINER.MAPLE.PROMPT_DEPTH", settings.PROMPT_DEPTH)
        super().__init__(settings, classnames, clip_model, n_ctx=settings.N_CTX)
        n_ctx, width = self.ctx.shape
        visual_width, deeper = image_tower.width, range(settings.PROMPT_DEPTH - 1)
        self.proj = nn.Linear(width, visual_width)
        self.compound_prompts_text = nn.ParameterList(random_vectors(n_ctx, width) for _ in deeper)
        coupling = nn.Linear(width, visual_width)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(coupling) for _ in deeper)

    def deep_context(self) -> Tensor | None:
        """Returns P_2 ... P_J, (J - 1, M, D); None where there are none."""
        deep = list(self.compound_prompts_text)
        return torch.stack(deep) if deep else None

    def visual_prompts(self) -> tuple[Tensor, Tensor | None]:
        """Returns P~_1, (M, V), and P~_2 ... P~_J, (J - 1, M, V)."""
        pairs = zip(self.compound_prompt_projections, self.compound_prompts_text)
        with without_autocast(self.ctx):
            deep = [coupling(prompt) for coupling, prompt in pairs]
            return self.proj(self.ctx), torch.stack(deep) if deep else None


class CustomCLIP(custom_clip.CustomCLIP):
    """CLIP with coupled prompts in both towers."""

    prompt_learner_class = PromptLearner

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg, classnames, clip_model)
        self.prompts = nn.ModuleDict({"prompt_learner": self.prompt_learner})

    @property
    def learned(self) -> nn.Module:
        return self.prompts

    def encode_prompts(self) -> Tensor:
        learner = self.prompt_learner
        deep = learner.deep_context()
        return normalize(self.text_encoder(learner.context(), learner.tree, deep)[0])

    def visual_prompts(self) -> tuple[Tensor, Tensor | None]:
        return self.prompt_learner.visual_prompts()


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=False, capturable_step=True)
class MaPLe(VLTrainer):
    """Multi-modal prompt learning, https://arxiv.org/abs/2210.03117."""

    config_node = "MAPLE"
    custom_clip_class = CustomCLIP
    checkpoint_folder = "MultiModalPromptLearner"

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        least = {"N_CTX": 1, "PROMPT_DEPTH": 1}
        return [*out_of_bounds(settings, key, least), *too_few_words(settings, key, "N_CTX")]
