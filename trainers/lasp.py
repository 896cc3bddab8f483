"""LASP: language-aware soft prompting (Bulat and Tzimiropoulos, CVPR 2023, arXiv 2210.01115).

Learned prompts that are still read as what people would have written. There are L hand-written
templates, and w_y^l is the class feature of class y in template l. The learned prompt of class i,
with the feature w_i, has to be recognized as class i among them:

    p_l(y | w_i) = softmax_y(cos(w_y^l, w_i) / tau)
    L = L_ce + lambda L_tt,  L_tt = the mean over classes i and templates l of -log p_l(i | w_i)

No image is needed for L_tt. With G groups of prompts, each has a share of the templates for itself,
and an image is compared with all (section 3.2). What prompts say of images may be re-calibrated by
a vector b for all classes, w_i + b (section 3.4).

Shapes: B images, C classes, G groups, M context vectors, L templates, E embedding size.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from encoders.openai import CLIP
from encoders.tower import normalize, without_autocast
from trainers import custom_clip
from trainers.clip_trainer import frozen_clip
from trainers.custom_clip import SeveralContexts, cosine_logits
from trainers.hand_written import class_features
from trainers.imagenet_templates import IMAGENET_TEMPLATES_SELECT
from trainers.prompt_trainer import PromptTrainer

ONE_PLACE = re.compile(r"[^{}]*\{\}[^{}]*")  # for the class name


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.LASP = CN()
    cfg.TRAINER.LASP.N_CTX = 4  # context vectors of a group, M
    cfg.TRAINER.LASP.CTX_INIT = "a photo of a"  # words that each starts from; empty: random
    cfg.TRAINER.LASP.PREC = "amp"  # fp16, fp32, amp
    cfg.TRAINER.LASP.GROUPS = 1  # G
    cfg.TRAINER.LASP.LASP_PROMPTS = IMAGENET_TEMPLATES_SELECT  # the templates
    cfg.TRAINER.LASP.LASP_LOSS_WEIGHT = 5.0  # lambda
    cfg.TRAINER.LASP.ENABLE_CORRECTION = True  # learn b


class PromptLearner(SeveralContexts):
    """A context for each group, and the re-calibration.

    Parameters:
        ctx: (G, M, D).
        bias: (E,) b, if there is one.
    """

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        settings = cfg.TRAINER.LASP
        super().__init__(settings.GROUPS, settings, classnames, clip_model)
        size = clip_model.text_projection.shape[1]
        self.bias = nn.Parameter(torch.zeros(size)) if settings.ENABLE_CORRECTION else None


class CustomCLIP(custom_clip.CustomCLIP):
    """CLIP whose prompts are learned, and which knows what hand-written ones say."""

    prompt_learner_class = PromptLearner

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg, classnames, clip_model)
        settings = cfg.TRAINER.LASP
        self.weight = settings.LASP_LOSS_WEIGHT
        features = [class_features(clip_model, classnames, [t]) for t in settings.LASP_PROMPTS]
        # Template l is group (l mod G)'s.
        self.register_buffer("hand_written", torch.stack(features), persistent=False)  # (L, C, E)

    def group_features(self) -> Tensor:
        """Returns class features w of all groups, (G, C, E), of length 1."""
        learner = self.prompt_learner
        return normalize(self.text_encoder(learner.context(), learner.tree))

    def recalibrated(self, groups: Tensor) -> Tensor:
        """w (G, C, E) → (C, E), whose product with f is the mean of its cosines with w + b."""
        bias = self.prompt_learner.bias
        return (groups if bias is None else normalize(groups + bias)).mean(dim=0)

    def encode_prompts(self) -> Tensor:
        return self.recalibrated(self.group_features())

    def text_to_text(self, groups: Tensor) -> Tensor:
        """Class features w (G, C, E) of length 1 → L_tt, ()."""
        n_groups, n_cls, _ = groups.shape
        group = torch.arange(len(self.hand_written), device=groups.device) % n_groups
        label = torch.arange(n_cls, device=groups.device).expand(len(group), -1)  # (L, i)
        with without_autocast(groups):
            own = groups.index_select(0, group)  # (L, i, E)
            logits = self.logit_scale.exp() * self.hand_written @ own.mT  # (L, y, i)
            return F.cross_entropy(logits, label)

    def loss(self, image_features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Image features (B, E) of length 1, labels (B,) → L, (), and logits (B, C)."""
        groups = self.group_features()
        logits = cosine_logits(self.logit_scale, image_features, self.recalibrated(groups))
        loss = F.cross_entropy(logits, label)
        return loss + self.weight * self.text_to_text(groups), logits


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True, capturable_step=True)
class LASP(PromptTrainer):
    """Language-aware soft prompting, https://arxiv.org/abs/2210.01115."""

    config_node = "LASP"
    custom_clip_class = CustomCLIP

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        problems = super().context_problems(settings, key)
        templates = settings.LASP_PROMPTS
        if not 1 <= settings.GROUPS <= max(1, len(templates)):
            problems.append(
                f"{key}.GROUPS is {settings.GROUPS}; expected 1 to {len(templates)}, as many as "
                f"there are templates ({key}.LASP_PROMPTS)."
            )
        if not templates:
            problems.append(f"{key}.LASP_PROMPTS is empty: name one, such as 'a photo of a {{}}.'.")
        problems += [
            f"{key}.LASP_PROMPTS has {template!r}; a template has one {{}}, for the class name."
            for template in templates
            if not isinstance(template, str) or not ONE_PLACE.fullmatch(template)
        ]
        return problems
