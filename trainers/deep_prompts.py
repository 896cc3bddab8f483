"""Deep prompts, vectors of their own for several blocks of a tower: what methods with them share.

Block i <= J of a tower has M vectors P_i: the first ones enter with the words or behind the
patches, deeper ones take the place of what the block before made of them (VPT, arXiv 2203.12119;
MaPLe, arXiv 2210.03117, section 3.2).

Shapes: B images, C classes, M context vectors, N visual prompts, D width, E embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from dassl.utils import ConfigError
from dassl.utils.text import counted
from encoders.image import require_patches
from encoders.openai import CLIP
from encoders.tower import normalize
from trainers.custom_clip import CTX_STD, BasePromptLearner, CustomCLIP
from trainers.prompt_trainer import PromptTrainer

MOST_VECTORS = 1000  # a block's; the papers have 2 to 16


class DeepPrompts(nn.Module):
    """Vectors of blocks 2 to J of a tower, under the names that public checkpoints have.

    Args:
        transformer: the tower's.
        key: the setting that says J.
        depth: J.
        n: vectors a block.

    Raises:
        ConfigError: the tower has fewer blocks.
    """

    def __init__(self, transformer: Any, key: str, depth: int, n: int) -> None:
        super().__init__()
        check_depth(transformer, key, depth)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleDict()
        for i in range(1, depth):
            block = nn.Module()
            block.VPT_shallow = random_vectors(n, transformer.width)
            self.transformer.resblocks[str(i)] = block

    def deep(self) -> Tensor | None:
        """Returns (J - 1, n, D); None where there are none."""
        blocks = self.transformer.resblocks.values()
        return torch.stack([block.VPT_shallow for block in blocks]) if blocks else None


class VisualPrompts(DeepPrompts):
    """Vectors behind the patches, and those of the deeper blocks."""

    def __init__(self, transformer: Any, key: str, depth: int, n: int) -> None:
        super().__init__(transformer, key, depth, n)
        self.VPT = random_vectors(n, transformer.width)

    def vectors(self) -> tuple[Tensor, Tensor | None]:
        """Returns (n, D), and `deep()`."""
        return self.VPT, self.deep()


def random_vectors(n: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(n, width), std=CTX_STD))


class VLCustomCLIP(CustomCLIP):
    """CLIP with learned prompts in both towers.

    The context of the text tower's first block starts from the first N_CTX_TEXT words of CTX_INIT;
    words that are left over stay constant, as in the public implementation.

    Attributes:
        prompts: all that is learned, named as in public checkpoints.
    """

    config_node = ""  # the method's settings are in TRAINER.<config_node>

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg, classnames, clip_model)
        settings, key = cfg.TRAINER[self.config_node], f"TRAINER.{self.config_node}.PROMPT_DEPTH"
        self.prompts = nn.ModuleDict({"prompt_learner": self.prompt_learner})
        depth, n = settings.PROMPT_DEPTH_VISION, settings.N_CTX_VISION
        if depth:
            image_tower = visual_transformer(clip_model)
            self.prompts["image_encoder"] = VisualPrompts(image_tower, f"{key}_VISION", depth, n)
        depth, n = settings.PROMPT_DEPTH_TEXT, settings.N_CTX_TEXT
        text_tower = clip_model.transformer
        self.prompts["text_encoder"] = DeepPrompts(text_tower, f"{key}_TEXT", depth, n)

    def build_prompt_learner(
        self, cfg: CfgNode, classnames: list[str], clip_model: CLIP
    ) -> BasePromptLearner:
        settings = cfg.TRAINER[self.config_node]
        return BasePromptLearner(settings, classnames, clip_model, n_ctx=settings.N_CTX_TEXT)

    @property
    def learned(self) -> nn.Module:
        return self.prompts

    def encode_prompts(self) -> Tensor:
        learner, deep = self.prompt_learner, self.prompts["text_encoder"].deep()
        return normalize(self.text_encoder(learner.context(), learner.tree, deep)[0])

    def visual_prompts(self) -> tuple[Tensor | None, Tensor | None]:
        if "image_encoder" not in self.prompts:
            return super().visual_prompts()
        return self.prompts["image_encoder"].vectors()


def visual_transformer(clip_model: CLIP) -> Any:
    """Returns the image tower's transformer; raises ConfigError where there is none."""
    require_patches(clip_model.visual)
    return clip_model.visual.transformer


def check_depth(transformer: Any, key: str, depth: int) -> None:
    """Raises ConfigError if a tower has fewer blocks than the setting `key` says."""
    n_blocks = len(transformer.resblocks)
    if depth > n_blocks:
        has = counted(n_blocks, "block")
        raise ConfigError(f"{key} is {depth}, but the tower has {has}: set {n_blocks}.")


def out_of_bounds(settings: CfgNode, key: str, least: dict[str, int]) -> list[str]:
    """Returns a sentence for each setting below its least value, or above MOST_VECTORS."""
    return [
        f"{key}.{name} is {settings[name]}; expected {smallest} to {MOST_VECTORS}."
        for name, smallest in least.items()
        if not smallest <= settings[name] <= MOST_VECTORS
    ]


def too_few_words(settings: CfgNode, key: str, n_ctx_key: str) -> list[str]:
    """Returns a sentence if CTX_INIT has fewer words than there are context vectors."""
    n_words, n_ctx = len(settings.CTX_INIT.replace("_", " ").split()), settings[n_ctx_key]
    if not 0 < n_words < n_ctx:
        return []
    return [
        f"{key}.CTX_INIT has {counted(n_words, 'word')} for {n_ctx} context vectors "
        f"({key}.{n_ctx_key}): write as many words, or leave it empty ('') to start at random."
    ]


class VLTrainer(PromptTrainer):
    """A trainer whose checkpoints have the public names, in a folder of the public name.

    Public ones hold CLIP's frozen weights as well, which are passed over.
    """

    checkpoint_folder = "VLPromptLearner"
    frozen_names = ("image_encoder.", "text_encoder.", "logit_scale", "prompt_learner.ZS_")

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        least = {"N_CTX_TEXT": 1, "PROMPT_DEPTH_TEXT": 1, "PROMPT_DEPTH_VISION": 0}
        least["N_CTX_VISION"] = min(settings.PROMPT_DEPTH_VISION, 1)
        return [*out_of_bounds(settings, key, least), *too_few_words(settings, key, "N_CTX_TEXT")]

    def frozen_entries(self, state_dict: dict[str, Tensor]) -> list[str]:
        return [k for k in super().frozen_entries(state_dict) if "VPT" not in k]
