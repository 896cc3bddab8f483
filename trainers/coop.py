"""CoOp: learning to prompt for vision-language models (Zhou et al., IJCV 2022, arXiv 2109.01134).

The prompt of class i is t_i = [V]_1 [V]_2 ... [V]_M [CLASS]_i (eq. 2), or has the class in the
middle (eq. 4) or in front. The M vectors [V] are learned by cross-entropy of
p(y = i | x) = softmax_i(cos(g(t_i), f) / tau) (eq. 3), with both encoders, f = f(x) and g, frozen.

Shapes: B images, C classes, M context vectors, L positions, D width, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from dassl.utils import ConfigError
from dassl.utils.errors import not_one_of
from dassl.utils.logger import get_logger
from encoders.openai import CLIP
from encoders.text import TextEncoder
from encoders.tokens import OPENAI, Tokenizer
from trainers import custom_clip
from trainers.clip_trainer import frozen_clip, load_clip_to_cpu
from trainers.prompt_trainer import PromptTrainer

__all__ = ["CoOp", "CustomCLIP", "PromptLearner", "TextEncoder", "load_clip_to_cpu"]

logger = get_logger(__name__)

POSITIONS = ("end", "middle", "front")


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.COOP = CN()
    cfg.TRAINER.COOP.N_CTX = 16  # number of context vectors, M
    cfg.TRAINER.COOP.CSC = False  # class-specific context
    cfg.TRAINER.COOP.CTX_INIT = ""  # words to start from; empty: random
    cfg.TRAINER.COOP.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = "end"  # end, middle, front


def split_words(settings: CfgNode, tokenizer: Tokenizer) -> list[str]:
    """Returns a sentence if words of CTX_INIT are several tokens where each has to be one."""
    position, words = settings.CLASS_TOKEN_POSITION, settings.CTX_INIT.replace("_", " ")
    if position == "end" or tokenizer.count(words) <= len(words.split()):
        return []
    return [
        f"TRAINER.COOP.CTX_INIT is {words!r}, more tokens than words; with "
        f"CLASS_TOKEN_POSITION {position!r} the last would stand for the class name. Take "
        "words of one token each, or the position 'end'."
    ]


class PromptLearner(custom_clip.BasePromptLearner):
    """Context vectors before, around or after the class name (section 3.2)."""

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        settings = cfg.TRAINER.COOP
        self.position = settings.CLASS_TOKEN_POSITION
        super().__init__(settings, classnames, clip_model, class_specific=settings.CSC)
        if self.tokenizer != OPENAI and (problems := split_words(settings, self.tokenizer)):
            raise ConfigError(problems)  # the trainer looks as OpenAI's tokenizer does

    def _initial_context(self, ctx_init: str, clip_model: CLIP, class_specific: bool) -> Tensor:
        if not ctx_init:
            kind = "class-specific contexts" if class_specific else "a generic context"
            logger.info(f"Initializing {kind}")
        return super()._initial_context(ctx_init, clip_model, class_specific)

    def prompt(self, context: list[int], name: list[int]) -> list[int]:
        half = len(context) // 2
        return {
            "end": [*context, *name],  # [V]_1 ... [V]_M [CLASS], eq. 2
            "middle": [*context[:half], *name, *context[half:]],  # eq. 4
            "front": [*name, *context],
        }[self.position]

    def forward(self) -> Tensor:
        """Returns the prompts' embeddings, (C, L, D).

        For readers: training needs `context` alone.
        """
        ctx = self.ctx.expand(self.n_cls, -1, -1)  # (C, M, D), also if it is shared
        prompts = torch.cat([self.token_prefix, ctx, self.suffix()], dim=1)  # (C, L, D)
        order = torch.tensor([self.order(c) for c in range(self.n_cls)]).to(ctx.device)  # (C, L)
        return prompts.gather(1, order[..., None].expand_as(prompts))

    def order(self, c: int) -> list[int]:
        """Returns which position of [start, context, name, ...] comes where in a class's prompt."""
        name_start = 1 + self.n_ctx
        name_end = name_start + self.name_lens[c]
        context, name = list(range(1, name_start)), list(range(name_start, name_end))
        return [0, *self.prompt(context, name), *range(name_end, self.length)]


class CustomCLIP(custom_clip.CustomCLIP):
    """CLIP whose class prompts are learned; its logits are eq. 3's, `custom_clip.cosine_logits`."""

    prompt_learner_class = PromptLearner


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True, capturable_step=True)
class CoOp(PromptTrainer):
    """Context optimization, https://arxiv.org/abs/2109.01134."""

    config_node = "COOP"
    custom_clip_class = CustomCLIP

    @classmethod
    def config_problems(cls, cfg: CfgNode) -> list[str]:
        problems = super().config_problems(cfg)
        position = cls.settings(cfg).CLASS_TOKEN_POSITION
        if position not in POSITIONS:
            problems.append(not_one_of("TRAINER.COOP.CLASS_TOKEN_POSITION", position, POSITIONS))
        return [*problems, *split_words(cls.settings(cfg), OPENAI)]

    def summarize(self, loss: Tensor, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {"loss": loss, "acc": compute_accuracy(logits, label)[0].squeeze(0)}
