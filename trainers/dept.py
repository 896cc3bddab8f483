"""DePT: decoupled prompt tuning (Zhang et al., CVPR 2024, arXiv 2309.07439).

Another method's prompts, DEPT.BASE, learned by image-text matching (ITM), and beside them a channel
adjusted transfer head (CAT), which takes in what is particular to the base classes, so that the
features need not: a learned scale and shift of each channel, then a linear classifier,

    s = gamma * f + beta,  P_CAT(c | x) = softmax(W s + b)_c
    L = lambda L_CAT + (1 - lambda) L_ITM
    p(c | x) = lambda P_CAT(c | x) + (1 - lambda) P_ITM(c | x)

L_CAT is the cross-entropy on the batch's image features and on the class features of its labels.
On classes that the head has not learned, p is P_ITM alone. docs/methods.md says what could not be
confirmed.

Shapes: B images, C classes, E embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import ConfigError
from dassl.utils.errors import not_one_of
from dassl.utils.logger import get_logger
from dassl.utils.registry import file_of
from encoders.openai import CLIP
from encoders.tokens import tokenize
from encoders.tower import without_autocast
from trainers import custom_clip
from trainers.custom_clip import cosine_logits
from trainers.prompt_trainer import PromptTrainer

logger = get_logger(__name__)

BASES = ("CoOp", "IVLP", "MaPLe")  # methods whose loss is the cross-entropy of fixed classes
HEAD = "cat_head"  # folder of its checkpoints


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.DEPT = CN()
    cfg.TRAINER.DEPT.BASE = "CoOp"  # whose prompts; their settings are in TRAINER.<its node>
    cfg.TRAINER.DEPT.WEIGHT = 0.7  # of the head, in loss and prediction, lambda
    cfg.TRAINER.DEPT.LR_RATIO = 6.5  # the head's learning rate over that of the prompts


class CATHead(nn.Module):
    """Features of length 1 → logits of the classes that it was made for.

    Attributes:
        knows: whether those are the classes at hand.

    Args:
        classnames: C names.
        width: E.
    """

    def __init__(self, classnames: list[str], width: int) -> None:
        super().__init__()
        self.knows = True
        sides = ("image", "text")
        self.scale = nn.ParameterDict({side: torch.ones(width) for side in sides})  # gamma
        self.shift = nn.ParameterDict({side: torch.zeros(width) for side in sides})  # beta
        self.classifier = nn.Linear(width, len(classnames))
        self.register_buffer("classes", tokenize([n.replace("_", " ") for n in classnames]))

    def forward(self, features: Tensor, side: str = "image") -> Tensor:
        """Image or class features (B, E) → logits (B, C), float32 in every precision."""
        with without_autocast(features):
            return self.classifier(self.scale[side] * features + self.shift[side])


class DecoupledCLIP(custom_clip.CustomCLIP):
    """In front of a method's CustomCLIP: the same with a head."""

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg, classnames, clip_model)
        self.head = CATHead(classnames, clip_model.text_projection.shape[1])
        self.weight = cfg.TRAINER.DEPT.WEIGHT

    def loss(self, image_features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Image features (B, E) of length 1, labels (B,) → L, (), and log p (B, C)."""
        text_features = self.text_features()  # (C, E)
        matching = cosine_logits(self.logit_scale, image_features, text_features)
        seen, named = self.head(image_features), text_features.index_select(0, label)
        both = torch.cat([seen, self.head(named, "text")])  # (2 B, C)
        loss = self.weight * F.cross_entropy(both, label.repeat(2))
        loss = loss + (1 - self.weight) * F.cross_entropy(matching, label)
        return loss, self.fused(seen, matching)

    def logits(self, image_features: Tensor) -> Tensor:
        """Image features (B, E) of length 1 → log p (B, C), or logits where p is P_ITM."""
        matching = super().logits(image_features)
        return self.fused(self.head(image_features), matching) if self.head.knows else matching

    def fused(self, head: Tensor, matching: Tensor) -> Tensor:
        """Both logits (B, C) → log p (B, C)."""
        p = self.weight * head.softmax(dim=1) + (1 - self.weight) * matching.softmax(dim=1)
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


@TRAINER_REGISTRY.register()
class DePT(PromptTrainer):
    """Decoupled prompt tuning, https://arxiv.org/abs/2309.07439.

    What is built is a trainer of the base method, in all else: settings, checkpoints, inputs.
    """

    def __new__(cls, cfg: CfgNode) -> DePT:
        problems = _own_problems(cfg)
        if problems:
            raise ConfigError(problems)
        base = TRAINER_REGISTRY.get(cfg.TRAINER.DEPT.BASE)
        model_class = type("CustomCLIP", (DecoupledCLIP, base.custom_clip_class), {})
        own = {"custom_clip_class": model_class, "_promise": base.promise()}
        return object.__new__(type(cls.__name__, (cls, base), own))

    @classmethod
    def config_problems(cls, cfg: CfgNode) -> list[str]:
        problems = _own_problems(cfg)
        return problems or TRAINER_REGISTRY.get(cfg.TRAINER.DEPT.BASE).config_problems(cfg)

    def build_model(self) -> None:
        super().build_model()
        optim_cfg, head = self.cfg.OPTIM.clone(), self.model.head
        optim_cfg.defrost()
        optim_cfg.LR *= self.cfg.TRAINER.DEPT.LR_RATIO
        optim = build_optimizer(head, optim_cfg)
        self.register_model(HEAD, head, optim, build_lr_scheduler(optim, optim_cfg))

    def load_weights(self, name: str, state_dict: dict[str, Any]) -> None:
        """As other methods; a head of other classes than those at hand is left out."""
        if name != HEAD:
            return super().load_weights(name, state_dict)
        head, classes = self.model.head, state_dict.get("classes")
        head.knows = classes is not None and torch.equal(classes.cpu(), head.classes.cpu())
        if head.knows:
            head.load_state_dict(state_dict)
        else:
            logger.info("The head knows other classes than these: matching alone decides")


def _own_problems(cfg: CfgNode) -> list[str]:
    settings = cfg.TRAINER.DEPT
    if settings.BASE not in BASES:
        return [not_one_of("TRAINER.DEPT.BASE", settings.BASE, BASES)]
    if not issubclass(base := TRAINER_REGISTRY.get(settings.BASE), PromptTrainer):
        place = f"TRAINER.DEPT.BASE is {settings.BASE}, which {file_of(base)} defines"
        return [f"{place}: a trainer of another program. Take that file out of trainers/."]
    if not 0 <= settings.WEIGHT <= 1:
        return [f"TRAINER.DEPT.WEIGHT is {settings.WEIGHT}; expected 0 to 1."]
    if settings.LR_RATIO < 0:
        return [f"TRAINER.DEPT.LR_RATIO is {settings.LR_RATIO}; expected 0 or more."]
    return []
