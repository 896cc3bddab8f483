"""CoCoOp: conditional prompt learning (Zhou et al., CVPR 2022, arXiv 2203.05557).

Each image x shifts the context: v_m(x) = v_m + pi, with pi = h(x) from a small network, the
Meta-Net, so the prompt of class i is t_i(x) = {v_1(x), ..., v_M(x), c_i} and
p(y | x) = softmax_y(sim(x, g(t_y(x))) / tau) (section 3.2, eq. 3). Both encoders are frozen.

Shapes: B images, C classes, M context vectors, L positions, D width, E embedding size.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from dassl.utils.logger import get_logger
from encoders.openai import CLIP
from encoders.text import TextEncoder
from encoders.tower import normalize, without_autocast
from trainers import custom_clip
from trainers.clip_trainer import frozen_clip, load_clip_to_cpu
from trainers.prompt_trainer import PromptTrainer

__all__ = ["CoCoOp", "CustomCLIP", "MetaNet", "PromptLearner", "TextEncoder", "load_clip_to_cpu"]

logger = get_logger(__name__)


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.COCOOP = CN()
    cfg.TRAINER.COCOOP.N_CTX = 16  # number of context vectors, M
    cfg.TRAINER.COCOOP.CTX_INIT = ""  # words to start from; empty: random
    cfg.TRAINER.COCOOP.PREC = "fp16"  # fp16, fp32, amp


class MetaNet(nn.Sequential):
    """Linear, ReLU, linear; the hidden layer is 16 times smaller than the input (section 3.2).

    Args:
        vis_dim: size of an image feature, E.
        ctx_dim: size of a context vector, D.
    """

    def __init__(self, vis_dim: int, ctx_dim: int) -> None:
        super().__init__(
            OrderedDict(
                linear1=nn.Linear(vis_dim, vis_dim // 16),
                relu=nn.ReLU(inplace=True),
                linear2=nn.Linear(vis_dim // 16, ctx_dim),
            )
        )


class PromptLearner(custom_clip.BasePromptLearner):
    """Context vectors that the Meta-Net shifts for each image."""

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg.TRAINER.COCOOP, classnames, clip_model)
        self.meta_net = MetaNet(clip_model.visual.output_dim, self.ctx.shape[-1])

    def context(self, image_features: Tensor) -> Tensor:
        """Image features (B, E), of length 1 → context vectors (B, M, D)."""
        with without_autocast(image_features):
            bias = self.meta_net(image_features)  # (B, D)
        return self.ctx + bias[:, None]

    def forward(self, image_features: Tensor) -> Tensor:
        """Image features (B, E), of length 1 → prompts' embeddings (B, C, L, D).

        For readers: training needs `context` alone.
        """
        ctx = self.context(image_features)  # (B, M, D)
        batch = len(ctx)
        ctx = ctx[:, None].expand(-1, self.n_cls, -1, -1)  # (B, C, M, D)
        prefix = self.token_prefix.expand(batch, -1, -1, -1)
        suffix = self.suffix().expand(batch, -1, -1, -1)
        return torch.cat([prefix, ctx, suffix], dim=2)


class CustomCLIP(custom_clip.CustomCLIP):
    """CLIP whose class prompts are learned and depend on the image."""

    prompt_learner_class = PromptLearner

    def text_features(self, image_features: Tensor) -> Tensor:
        """Image features (B, E) → class features g(t(x)), (B, C, E), of length 1."""
        learner = self.prompt_learner
        return normalize(self.text_encoder(learner.context(image_features), learner.tree))

    def logits(self, image_features: Tensor) -> Tensor:
        text_features = self.text_features(image_features)  # (B, C, E)
        with without_autocast(image_features):
            similarity = torch.einsum("be,bce->bc", image_features, text_features)
            return self.logit_scale.exp() * similarity  # (B, C)


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True, capturable_step=True)
class CoCoOp(PromptTrainer):
    """Conditional context optimization, https://arxiv.org/abs/2203.05557."""

    config_node = "COCOOP"
    custom_clip_class = CustomCLIP

    def build_model(self) -> None:
        super().build_model()
        learned = {n for n, p in self.model.named_parameters() if p.requires_grad}
        logger.info(f"Parameters to be updated: {learned}")
