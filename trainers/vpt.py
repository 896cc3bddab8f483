"""VPT: deep visual prompts on CLIP's image tower (Jia et al., ECCV 2022, arXiv 2203.12119).

The vectors P_i of block i stand behind the patches; those of a deeper block take the place of what
the block before made of them (VPT-deep). Class features are those of hand-written prompts and
never change.

Shapes: B images, C classes, N visual prompts, D width, E embedding size.
"""

from __future__ import annotations

from torch import Tensor, nn
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from encoders.openai import CLIP
from trainers import custom_clip
from trainers.clip_trainer import frozen_clip
from trainers.custom_clip import context_words
from trainers.deep_prompts import VisualPrompts, VLTrainer, out_of_bounds, visual_transformer
from trainers.hand_written import class_features, class_prompts


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.VPT = CN()
    cfg.TRAINER.VPT.N_CTX_VISION = 2  # vectors a block, N
    cfg.TRAINER.VPT.CTX_INIT = "a photo of a"  # the words in front of the class name
    cfg.TRAINER.VPT.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.VPT.PROMPT_DEPTH_VISION = 1  # blocks with vectors of their own


class PromptLearner(nn.ModuleDict):
    """The visual prompts, named as in public checkpoints, and what is said of the text side."""

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        settings, tower = cfg.TRAINER.VPT, visual_transformer(clip_model)
        key, depth = "TRAINER.VPT.PROMPT_DEPTH_VISION", settings.PROMPT_DEPTH_VISION
        prompts = VisualPrompts(tower, key, depth, settings.N_CTX_VISION)
        super().__init__({"image_encoder": prompts})
        self.template = f"{context_words(settings.CTX_INIT)} {{}}.".lstrip()
        self.classnames = classnames

    def first_prompts(self, n: int = 2) -> str:
        return ", ".join(class_prompts(self.classnames[:n], self.template))


class CustomCLIP(custom_clip.CustomCLIP):
    """CLIP with learned prompts in its image tower."""

    prompt_learner_class = PromptLearner

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg, classnames, clip_model)
        template = self.prompt_learner.template
        features = class_features(clip_model, classnames, [template])  # (C, E)
        self.register_buffer("class_features", features, persistent=False)

    def visual_prompts(self) -> tuple[Tensor, Tensor | None]:
        return self.prompt_learner["image_encoder"].vectors()

    def text_features(self) -> Tensor:
        return self.class_features


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=False, capturable_step=True)
class VPT(VLTrainer):
    """Visual prompt tuning, https://arxiv.org/abs/2203.12119."""

    config_node = "VPT"
    custom_clip_class = CustomCLIP
    checkpoint_folder = "prompt_learner"

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        return out_of_bounds(settings, key, {"N_CTX_VISION": 1, "PROMPT_DEPTH_VISION": 1})
