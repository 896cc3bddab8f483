"""Zero-shot CLIP (Radford et al., arXiv 2103.00020): hand-written prompts, nothing learned.

ZeroshotCLIP uses the data set's own template; ZeroshotCLIP2 averages several.
Shapes: B images, C classes, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils.logger import get_logger
from encoders.image import ImageEncoder
from encoders.tower import normalize
from trainers.clip_trainer import CLIPTrainer, frozen_clip, image_products
from trainers.hand_written import DEFAULT_TEMPLATE, class_features, class_prompts, template_of
from trainers.imagenet_templates import IMAGENET_TEMPLATES_SELECT

logger = get_logger(__name__)


class _Templates(Mapping):
    """Name of a data set → its template, of those that are registered at the time."""

    def __getitem__(self, name: str) -> str:
        return getattr(DATASET_REGISTRY.get(name), "template", DEFAULT_TEMPLATE)

    def __iter__(self) -> Iterator[str]:
        return iter(DATASET_REGISTRY.registered_names())

    def __len__(self) -> int:
        return len(DATASET_REGISTRY.registered_names())


CUSTOM_TEMPLATES = _Templates()  # for other people's files; ours ask the data set


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True)
class ZeroshotCLIP(CLIPTrainer):
    """One prompt a class."""

    def build_model(self) -> None:
        self.precision = self.inference_precision()
        self.clip_model = self.load_clip().to(self.device)
        self._image_encoder = ImageEncoder(
            self.clip_model.visual, products=image_products(self.cfg)
        )
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
