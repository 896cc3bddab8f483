"""Zero-shot CLIP (Radford et al., arXiv 2103.00020): hand-written prompts, nothing learned.

ZeroshotCLIP uses the data set's own template; ZeroshotCLIP2 averages several.
Shapes: B images, C classes, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils.logger import get_logger
from encoders.image import ImageEncoder
from encoders.openai import CLIP
from encoders.text import TextEncoder
from encoders.tokens import tokenize
from encoders.tower import normalize
from trainers.clip_trainer import CLIPTrainer, frozen_clip
from trainers.imagenet_templates import IMAGENET_TEMPLATES_SELECT

logger = get_logger(__name__)

DEFAULT_TEMPLATE = "a photo of a {}."  # for data sets that carry none


class _Templates(Mapping):
    """Name of a data set → its template, of those that are registered at the time."""

    def __getitem__(self, name: str) -> str:
        return getattr(DATASET_REGISTRY.get(name), "template", DEFAULT_TEMPLATE)

    def __iter__(self) -> Iterator[str]:
        return iter(DATASET_REGISTRY.registered_names())

    def __len__(self) -> int:
        return len(DATASET_REGISTRY.registered_names())


CUSTOM_TEMPLATES = _Templates()  # for other people's files; ours ask the data set


def template_of(dataset: object) -> str:
    """Returns a data set's own template; {} stands for the class name."""
    return getattr(dataset, "template", DEFAULT_TEMPLATE)


def class_prompts(classnames: list[str], template: str) -> list[str]:
    return [template.format(name.replace("_", " ")) for name in classnames]


def class_features(clip_model: CLIP, classnames: list[str], templates: Sequence[str]) -> Tensor:
    """Encodes hand-written prompts.

    Args:
        clip_model: the frozen CLIP.
        classnames: C names; "_" counts as a blank.
        templates: {} stands for the class name.

    Returns:
        (C, E) class features of length 1: the mean over templates, normalized again.
    """
    encoder = TextEncoder(clip_model)
    length, device = clip_model.positional_embedding.shape[0], clip_model.logit_scale.device
    features = []
    for template in templates:
        tokens = tokenize(class_prompts(classnames, template), length, classnames)
        features.append(normalize(encoder.encode_tokens(tokens.to(device))))
    return features[0] if len(features) == 1 else normalize(torch.stack(features).mean(dim=0))


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True)
class ZeroshotCLIP(CLIPTrainer):
    """One prompt a class."""

    def build_model(self) -> None:
        self.precision = self.inference_precision()
        self.clip_model = self.load_clip().to(self.device)
        self._image_encoder = ImageEncoder(self.clip_model.visual)
        templates = self.templates()
        self.announce(templates)
        self.text_features = class_features(  # (C, E)
            self.clip_model, self.dm.dataset.classnames, templates
        )

    def templates(self) -> list[str]:
        """Returns the templates to average; {} stands for the class name."""
        return [template_of(self.dm.dataset)]

    def announce(self, templates: list[str]) -> None:
        names = self.dm.dataset.classnames
        logger.info(f"Prompts: {class_prompts(names, templates[0])}")

    def model_inference(self, input: Tensor) -> Tensor:
        """Images (B, 3, H, W) → logits (B, C)."""
        return self.feature_inference(self.encode_images(input))

    def feature_inference(self, features: Tensor) -> Tensor:
        """Features (B, E), not normalized → logits (B, C): cosine similarities over tau."""
        return self.clip_model.logit_scale.exp() * normalize(features) @ self.text_features.t()

    def frozen_encoder(self) -> ImageEncoder:
        return self._image_encoder

    def train(self) -> float:
        """There is nothing to learn: evaluates."""
        if self._finished is not None:
            return super().train()
        logger.info(f"{self.cfg.TRAINER.NAME} has nothing to train")
        return self.test()


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True)
class ZeroshotCLIP2(ZeroshotCLIP):
    """Prompt ensembling: the seven selected ImageNet templates and the data set's own."""

    def templates(self) -> list[str]:
        own = [] if self.cfg.DATASET.NAME == "ImageNet" else super().templates()
        return [*IMAGENET_TEMPLATES_SELECT, *own]

    def announce(self, templates: list[str]) -> None:
        logger.info(f"Prompt ensembling (n={len(templates)})")
