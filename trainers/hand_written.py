"""Hand-written prompts: their class features, and models that are guided by them.

Shapes: C classes, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from encoders.openai import CLIP
from encoders.text import TextEncoder
from encoders.tokens import tokenize, tokenizer_of
from encoders.tower import normalize
from trainers.custom_clip import BasePromptLearner, CustomCLIP, cosine_logits
from trainers.deep_prompts import VLCustomCLIP
from trainers.imagenet_templates import IMAGENET_TEMPLATES
from trainers.prompt_trainer import PromptTrainer

N_TEMPLATES = 60  # PromptSRC's, the first of CLIP's 80
DEFAULT_TEMPLATE = "a photo of a {}."  # for data sets that carry none


def template_of(dataset: object) -> str:
    """Returns a data set's own template; {} stands for the class name."""
    return getattr(dataset, "template", DEFAULT_TEMPLATE)


def class_prompts(classnames: list[str], template: str) -> list[str]:
    return [template.format(name.replace("_", " ")) for name in classnames]


def class_features(
    clip_model: CLIP, classnames: list[str], templates: Sequence[str], of_length_one: bool = True
) -> Tensor:
    """Encodes hand-written prompts.

    Args:
        clip_model: the frozen CLIP.
        classnames: C names; "_" counts as a blank.
        templates: {} stands for the class name.
        of_length_one: normalize the features of each template, before their mean is normalized.

    Returns:
        (C, E) class features of length 1: the mean over templates, normalized.
    """
    encoder = TextEncoder(clip_model)
    length, device = clip_model.positional_embedding.shape[0], clip_model.logit_scale.device
    features = []
    for template in templates:
        prompts = class_prompts(classnames, template)
        tokens = tokenize(prompts, length, classnames, tokenizer_of(clip_model))
        encoded = encoder.encode_tokens(tokens.to(device))
        features.append(normalize(encoded) if of_length_one else encoded)
    alone = len(features) == 1 and of_length_one
    return features[0] if alone else normalize(torch.stack(features).mean(dim=0))


class GuidedCLIP(CustomCLIP):
    """CLIP with a learned context, which knows the class features of a hand-written prompt.

    One context for all classes stands in front of the name.

    Args:
        template: of that prompt; {} stands for the class name.
    """

    config_node = ""  # the method's settings are in TRAINER.<config_node>

    def __init__(
        self, cfg: CfgNode, classnames: list[str], clip_model: CLIP, template: str
    ) -> None:
        super().__init__(cfg, classnames, clip_model)
        features = class_features(clip_model, classnames, [template])  # w^clip, (C, E)
        self.register_buffer("hand_written", features, persistent=False)

    def build_prompt_learner(
        self, cfg: CfgNode, classnames: list[str], clip_model: CLIP
    ) -> BasePromptLearner:
        return BasePromptLearner(cfg.TRAINER[self.config_node], classnames, clip_model)


class KnowledgeGuidedCLIP(GuidedCLIP):
    """Its class features are held to the hand-written prompt's: L = L_ce + lambda L_kg.

    KgCoOp (arXiv 2303.13283) and what is built on it; lambda is TRAINER.<config_node>.W.
    """

    def __init__(self, cfg: CfgNode, *args: Any) -> None:
        super().__init__(cfg, *args)
        self.weight = cfg.TRAINER[self.config_node].W

    def guidance(self, text_features: Tensor) -> Tensor:
        """Class features w (C, E) of length 1 → L_kg, (): the mean of 1 - cos(w_i, w_i^clip)."""
        return 1 - (text_features * self.hand_written).sum(dim=-1).mean()

    def loss(self, image_features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Image features (B, E) of length 1, labels (B,) → L, (), and logits (B, C)."""
        text_features = self.text_features()  # w, (C, E)
        logits = cosine_logits(self.logit_scale, image_features, text_features)
        loss = F.cross_entropy(logits, label)
        return loss + self.weight * self.guidance(text_features), logits


class VLGuidedCLIP(VLCustomCLIP):
    """CLIP with learned prompts in both towers, which knows its features without them.

    Those of classes are means over many templates (PromptSRC, arXiv 2307.06948, section 3.2.3): 60
    of CLIP's, of whatever length, as in the public implementation.
    """

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__(cfg, classnames, clip_model)
        templates = IMAGENET_TEMPLATES[:N_TEMPLATES]
        features = class_features(clip_model, classnames, templates, of_length_one=False)  # (C, E)
        self.register_buffer("frozen_text_features", features, persistent=False)

    def frozen_features(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) → the frozen model's features (B, E), of length 1."""
        return normalize(self.frozen_image_encoder(image))

    def distance(
        self, text: Tensor, image: Tensor, frozen: Tensor, weights: tuple[float, float]
    ) -> Tensor:
        """Mean absolute differences from the frozen model's features, weighted and added.

        Args:
            text: class features (C, E).
            image: image features (B, E), and `frozen` those without prompts.
            weights: of the class features' difference and of the image features'.
        """
        text_weight, image_weight = weights
        distance = text_weight * F.l1_loss(text, self.frozen_text_features)
        return distance + image_weight * F.l1_loss(image, frozen)


class GuidedTrainer(PromptTrainer):
    """A trainer whose model knows the class features of the data set's hand-written prompt."""

    def build_custom_clip(self, clip_model: CLIP) -> GuidedCLIP:
        dataset = self.dm.dataset
        template = template_of(dataset)
        return self.custom_clip_class(self.cfg, dataset.classnames, clip_model, template)
