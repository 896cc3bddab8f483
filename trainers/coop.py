"""CoOp: learning to prompt for vision-language models (Zhou et al., IJCV 2022, arXiv 2109.01134).

The prompt of class c is t_c = [V]_1 ... [V]_M [CLASS_c] (eq. 2), with M vectors V learned by
cross-entropy of p(c | image) = softmax_c(cos(f, g(t_c)) / tau) (eq. 1), both encoders f, g frozen.

Shapes: B images, C classes, M context vectors, L positions, D width, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from dassl.utils.errors import not_one_of
from trainers.clip_utils import CLIP, load_clip_to_cpu
from trainers.prompt_learner import BasePromptLearner
from trainers.prompt_trainer import CustomCLIP as BaseCustomCLIP
from trainers.prompt_trainer import PromptTrainer, normalize
from trainers.text_encoder import TextEncoder

__all__ = ["CoOp", "CustomCLIP", "PromptLearner", "TextEncoder", "load_clip_to_cpu"]

POSITIONS = ("end", "middle", "front")


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.COOP = CN()
    cfg.TRAINER.COOP.N_CTX = 16  # number of context vectors, M
    cfg.TRAINER.COOP.CSC = False  # class-specific context
    cfg.TRAINER.COOP.CTX_INIT = ""  # words to start from; empty: random
    cfg.TRAINER.COOP.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = "end"  # end, middle, front


class PromptLearner(BasePromptLearner):
    """Context vectors before, around or after the class name (section 3.2)."""

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        settings = cfg.TRAINER.COOP
        self.position = settings.CLASS_TOKEN_POSITION
        super().__init__(settings, classnames, clip_model, class_specific=settings.CSC)

    def _initial_context(self, ctx_init: str, clip_model: CLIP, class_specific: bool) -> Tensor:
        if not ctx_init:
            kind = "class-specific contexts" if class_specific else "a generic context"
            print(f"Initializing {kind}")
        return super()._initial_context(ctx_init, clip_model, class_specific)

    def token_order(self, index: int) -> list[int]:
        first, end = 1 + self.n_ctx, 1 + self.n_ctx + self.name_lens[index]  # the name's tokens
        # Context before the name; the end token stays where it is, as no token is added.
        before = {"end": self.n_ctx, "middle": self.n_ctx // 2, "front": 0}[self.position]
        context, name = list(range(1, first)), list(range(first, end))
        return [0, *context[:before], *name, *context[before:], *range(end, self.length)]

    def forward(self) -> Tensor:
        """Returns the prompts' embeddings, (C, L, D).

        For readers: training needs `context` alone.
        """
        ctx = self.ctx.expand(self.n_cls, -1, -1)  # (C, M, D), also if it is shared
        prompts = torch.cat([self.token_prefix, ctx, self.suffix()], dim=1)  # (C, L, D)
        order = torch.tensor([self.token_order(c) for c in range(self.n_cls)]).to(ctx.device)
        return prompts.gather(1, order[..., None].expand_as(prompts))


class CustomCLIP(BaseCustomCLIP):
    """CLIP whose class prompts are learned."""

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        prompt_learner = PromptLearner(cfg, classnames, clip_model)
        super().__init__(clip_model, prompt_learner, TextEncoder(clip_model, cfg.MODEL.TEXT_CHUNK))
        self._kept: tuple[tuple, Tensor, Tensor] | None = None  # kind, context, its features

    def text_features(self) -> Tensor:
        """Returns (C, E) class features of length 1.

        Without gradients they are computed once and kept until the context changes. It is compared
        by value: writes through `.data` leave no other trace. On a GPU that waits for the batch's
        image encoding, as the copy of the next batch would.
        """
        ctx = self.prompt_learner.ctx
        if torch.is_grad_enabled():
            self._kept = None
            return self._encode()
        kind = (ctx.device, ctx.dtype, torch.is_autocast_enabled(ctx.device.type))
        if self._kept is None or self._kept[0] != kind or not torch.equal(self._kept[1], ctx):
            self._kept = (kind, ctx.detach().clone(), self._encode())
        return self._kept[2]

    def _encode(self) -> Tensor:
        learner = self.prompt_learner
        return normalize(self.text_encoder(learner.context(), learner.layout)[0])

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W), or their features (B, E) → logits (B, C)."""
        return self.logit_scale.exp() * self.encode_image(image) @ self.text_features().t()


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimization, https://arxiv.org/abs/2109.01134."""

    config_node = "COOP"
    frozen_image_side = shares_clip = capturable_step = True

    @classmethod
    def config_problems(cls, cfg: CfgNode) -> list[str]:
        problems = super().config_problems(cfg)
        position = cls.settings(cfg).CLASS_TOKEN_POSITION
        if position not in POSITIONS:
            problems.append(not_one_of("TRAINER.COOP.CLASS_TOKEN_POSITION", position, POSITIONS))
        return problems

    def build_custom_clip(self, clip_model: CLIP) -> CustomCLIP:
        return CustomCLIP(self.cfg, self.dm.dataset.classnames, clip_model)

    def summarize(self, loss: Tensor, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {"loss": loss, "acc": compute_accuracy(logits, label)[0].squeeze(0)}
