"""What every trainer on a frozen CLIP shares: how CLIP is loaded, and its image inputs.

Shapes: B images, C classes, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.config import mark_not_determining
from dassl.engine import TrainerX
from dassl.utils import ConfigError
from dassl.utils.errors import not_one_of
from dassl.utils.files import content_digest
from dassl.utils.logger import get_logger
from encoders import open_clip
from encoders.image import ImageEncoder
from encoders.kernels.gemm import multiplies_in_bf16
from encoders.load import freeze, load_model, weights_file
from encoders.open_clip import PREFIX, Backbone, Source
from encoders.openai import BACKBONES, CLIP, TINY, WIDE
from encoders.shared import load_frozen_clip
from encoders.tiny import KNOWS
from encoders.tokens import OPENAI, tokenizer_of
from features import ImageFeatures
from features.batches import Settings

logger = get_logger(__name__)

T = TypeVar("T", bound=type)

IMAGE_PRECISIONS = {"": None, "bf16": torch.bfloat16}


def extend_cfg(cfg: CfgNode) -> None:
    # What a weights file of other sizes than OpenAI's cannot tell; see encoders.families.
    cfg.MODEL.BACKBONE.ACTIVATION = ""  # quick_gelu
    cfg.MODEL.BACKBONE.HEAD_WIDTH = 0  # 64
    # "bf16": the image encoder's products in bfloat16, on a CPU that has them; "": as the rest
    cfg.MODEL.IMAGE_PRECISION = ""
    # Draw training views from (SEED, epoch) alone, the same for all methods, and keep their
    # features. Other draws than the public implementation's: off unless asked for.
    cfg.MODEL.FIXED_VIEWS = False
    cfg.MODEL.FEATURES = CN()
    cfg.MODEL.FEATURES.AHEAD_MB = 512  # MiB of views encoded in one go; 0: batch by batch
    cfg.MODEL.FEATURES.STORE_MB = 1024  # MiB of features kept on disk; 0: nothing is
    cfg.MODEL.FEATURES.FOLDER = ""  # where; empty: the user's cache
    mark_not_determining(cfg, "MODEL.FEATURES")  # how fast, not what


# --- what a class says of itself ------------------------------------------------------------------


@dataclass(frozen=True)
class _Promise:
    image_features: bool
    capturable_step: bool


def frozen_clip(*, image_features: bool, capturable_step: bool = False) -> Callable[[T], T]:
    """Says of a trainer class that its runs leave CLIP exactly as it is.

    Runs that follow each other in one process then share one CLIP. A subclass may do other things:
    what is said here does not hold for it unless it is said again.

    Args:
        image_features: nothing is learned on the image side, and steps draw no random numbers;
            batches then have features in place of images, see `CLIPTrainer`.
        capturable_step: the model and the loss draw no random numbers, read nothing back from the
            GPU, and depend on nothing that changes between steps but the batch and the learned
            parameters; a step may then be replayed as a CUDA graph.
    """

    def decorate(cls: T) -> T:
        cls._promise = _Promise(image_features, capturable_step)
        return cls

    return decorate


# --- the trainer ----------------------------------------------------------------------------------


class CLIPTrainer(TrainerX):
    """A trainer on a frozen CLIP.

    A class with `@frozen_clip(image_features=True)` gets batches with "features" (B, E), as the
    encoder makes them, in place of "img" (B, 3, H, W), wherever that can be. Such a class defines
    `frozen_encoder` and `feature_inference`.
    """

    @classmethod
    def config_problems(cls, cfg: CfgNode) -> list[str]:
        """Returns a sentence for each setting that does not suit this method."""
        problems = backbone_problems(cfg)
        if cfg.MODEL.IMAGE_PRECISION not in IMAGE_PRECISIONS:
            key, given = "MODEL.IMAGE_PRECISION", cfg.MODEL.IMAGE_PRECISION
            problems.append(not_one_of(key, given, IMAGE_PRECISIONS))
        return problems

    def check_cfg(self, cfg: CfgNode) -> None:
        problems = self.config_problems(cfg)
        if problems:
            raise ConfigError(problems)

    @classmethod
    def promise(cls) -> _Promise | None:
        """Returns what `frozen_clip` said of this very class."""
        return vars(cls).get("_promise")

    def load_clip(self) -> CLIP:
        """Returns CLIP in `self.precision`, without gradients.

        A shared one is on the trainer's device, an own one on the CPU, where other people's prompt
        learners look up their words.
        """
        logger.info(f"Loading CLIP (backbone: {backbone_name(self.cfg)})")
        if backbone_name(self.cfg) == TINY and self.cfg.DATASET.NAME != "Digits":
            advice = "--backbone ViT-B/16 --config-file configs/trainers/CoOp/vit_b16_ctxv1.yaml"
            logger.warning(f"Note: {KNOWS} Next: {advice}")
        self._check_image_precision()
        _note_squashing(backbone_of(self.cfg))
        if self.promise():
            clip_model = load_frozen_clip(
                backbone_of(self.cfg), self.precision, self.device, *_stated(self.cfg)
            )
            check_image_size(self.cfg, clip_model)
            return clip_model
        clip_model = load_clip(self.cfg, self.precision)
        freeze(clip_model)
        return clip_model

    def _check_image_precision(self) -> None:
        if not self.cfg.MODEL.IMAGE_PRECISION:
            return
        if self.device.type != "cpu":
            raise ConfigError(
                f"MODEL.IMAGE_PRECISION is {self.cfg.MODEL.IMAGE_PRECISION}, which is for CPUs: "
                "on a GPU, leave it away and choose fp16 or amp for the method's PREC."
            )
        if not multiplies_in_bf16():
            logger.warning(
                "MODEL.IMAGE_PRECISION is bf16, but this processor has no such products that torch "
                "knows of: images may be encoded more slowly than without it"
            )

    def inference_precision(self) -> str:
        """Returns the precision of methods without gradients: half on a GPU, float32 else."""
        return "fp16" if self.device.type == "cuda" else "fp32"

    def weights_used(self) -> dict[str, str] | None:
        """Returns name and SHA-256 of CLIP's weights file; None: a subclass has other weights.

        A file of open_clip's does not tell heads and activation: "read_as" does.
        """
        backbone = backbone_of(self.cfg)
        path = weights_file(backbone)
        if not path.is_file():
            return None
        used = {"name": f"CLIP {backbone_name(self.cfg)}", "sha256": content_digest(path)}
        return used | ({"read_as": backbone.read_as} if isinstance(backbone, Source) else {})

    # --- image inputs -----------------------------------------------------------------------------

    def frozen_encoder(self) -> ImageEncoder:
        """Returns the encoder that makes the features."""
        raise NotImplementedError

    def feature_inference(self, features: Tensor) -> Tensor:
        """Features (B, E) → logits (B, C): `model_inference` for images that were encoded."""
        raise NotImplementedError

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) → features (B, E), as the model would make them, but float32."""
        return self.frozen_encoder()(images.to(self.device, non_blocking=True)).float()

    def takes_features(self) -> bool:
        promise = self.promise()
        if promise is None or not promise.image_features:
            return False
        return not any(p.requires_grad for p in self.frozen_encoder().visual.parameters())

    @cached_property
    def image_features(self) -> ImageFeatures:
        """What stands in for images, made at first use: after the model is built."""
        model = self.cfg.MODEL
        settings = Settings(
            ahead_bytes=model.FEATURES.AHEAD_MB * 2**20,
            store_bytes=model.FEATURES.STORE_MB * 2**20,
            folder=model.FEATURES.FOLDER,
            fixed_views=self.cfg.SEED if model.FIXED_VIEWS else None,
        )
        precision = self.cfg.MODEL.IMAGE_PRECISION or self.precision
        return ImageFeatures(
            self.frozen_encoder(), self.encode_images, precision, self.device, settings
        )

    def train_inputs(self) -> Iterable:
        loader = super().train_inputs()
        if self.takes_features():
            return self.image_features.training(loader, self.epoch)
        if self.cfg.MODEL.FIXED_VIEWS and self.epoch == self.start_epoch:
            name = type(self).__name__
            logger.warning(f"MODEL.FIXED_VIEWS: {name} takes images, drawn as ever")
        return loader

    def test_inputs(self, split: str) -> Iterable:
        loader = super().test_inputs(split)
        if not self.takes_features():
            return loader
        self._encoded_before = self.frozen_encoder().images
        return self.image_features.stored(loader)

    def test_step(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if "features" not in batch:
            return super().test_step(batch)
        features, label = (batch[key].to(self.device) for key in ("features", "label"))
        return self.feature_inference(features), label

    def result_record(self, split: str, results: dict[str, float], seconds: float) -> dict:
        record = super().result_record(split, results, seconds)
        record["backbone"] = backbone_name(self.cfg)  # an architecture of open_clip's and its file
        if self.cfg.MODEL.IMAGE_PRECISION:
            record["image_precision"] = self.cfg.MODEL.IMAGE_PRECISION
        if self.takes_features():  # tells what `seconds` means
            record["images_encoded"] = self.frozen_encoder().images - self._encoded_before
        return record


# --- MODEL.BACKBONE -------------------------------------------------------------------------------


def image_products(cfg: CfgNode) -> torch.dtype | None:
    """Returns the precision of the image encoder's products; None: that of its weights."""
    return IMAGE_PRECISIONS[cfg.MODEL.IMAGE_PRECISION]


def backbone_name(cfg: CfgNode) -> str:
    """Returns what to call the backbone in messages: its file, or its name."""
    name, path = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PATH
    return f"{name} ({path})" if path and name.startswith(PREFIX) else path or name


def backbone_of(cfg: CfgNode) -> Backbone:
    """Returns what `encoders.load` takes: a weights file, a name, or what open_clip's stands for.

    Raises:
        ConfigError: MODEL.BACKBONE is wrong.
    """
    problems = backbone_problems(cfg)
    if problems:
        raise ConfigError(problems)
    name, path = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PATH
    if name.startswith(PREFIX):
        return Source.parse(name, path)
    return Path(path).expanduser() if path else name


def _stated(cfg: CfgNode) -> tuple[str, int]:
    return cfg.MODEL.BACKBONE.get("ACTIVATION", ""), cfg.MODEL.BACKBONE.get("HEAD_WIDTH", 0)


def backbone_problems(cfg: CfgNode) -> list[str]:
    """Returns what is wrong with MODEL.BACKBONE, as sentences."""
    backbone = cfg.MODEL.BACKBONE
    if backbone.NAME.startswith(PREFIX):
        return _open_clip_problems(cfg)
    if backbone.PATH:
        path = Path(backbone.PATH).expanduser()
        return [] if path.is_file() else [f"MODEL.BACKBONE.PATH: file {path} does not exist."]
    if backbone.NAME in (*BACKBONES, WIDE):
        return []
    return [
        not_one_of("MODEL.BACKBONE.NAME", backbone.NAME, BACKBONES)
        + " For a weights file of your own, set MODEL.BACKBONE.PATH."
    ]


def _open_clip_problems(cfg: CfgNode) -> list[str]:
    source = Source.parse(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PATH)
    problems = open_clip.problems_of(source)
    if any(_stated(cfg)):
        problems.append(
            f"MODEL.BACKBONE.ACTIVATION and HEAD_WIDTH tell of files in OpenAI's layout; {source} "
            "says them itself: leave them out."
        )
    return problems or _input_problems(cfg.INPUT, source)


def _input_problems(settings: CfgNode, source: Source) -> list[str]:
    """Returns a sentence if images are not prepared as those that a CLIP was trained with."""
    wanted, told = open_clip.preprocessing(source), []
    if _pair(settings.SIZE) != _pair(wanted["size"]):
        told.append(f'INPUT.SIZE "{_pair(wanted["size"])}"')
    for key, name in (("mean", "PIXEL_MEAN"), ("std", "PIXEL_STD")):
        if key in wanted and not np.allclose(settings[name], wanted[key], rtol=0, atol=1e-4):
            told.append(f'INPUT.{name} "{list(wanted[key])}"')
    if settings.INTERPOLATION != wanted.get("interpolation", settings.INTERPOLATION):
        told.append(f"INPUT.INTERPOLATION {wanted['interpolation']}")
    if not told:
        return []
    return [f"{source} was trained with images prepared in another way: add {' '.join(told)}."]


def _note_squashing(backbone: Backbone) -> None:
    if not isinstance(backbone, Source):
        return
    if open_clip.preprocessing(backbone).get("resize_mode") == "squash":
        logger.warning(
            f"Note: {backbone} was trained with whole images, squashed to squares; here their "
            "smaller edge is resized and the middle cut out. Only of square images that is the same"
        )


def load_clip_to_cpu(cfg: CfgNode) -> CLIP:
    """Loads the CLIP that MODEL.BACKBONE stands for, onto the CPU, in evaluation mode.

    As in the public implementation, convolution, linear and projection weights are in half
    precision; call `.float()` for full precision.

    Raises:
        ConfigError: MODEL.BACKBONE is wrong, or reads texts by another tokenizer than OpenAI's,
            which those who call this take.
        CheckpointError: the file does not hold a CLIP in OpenAI's layout.
        DownloadError: the weights cannot be fetched.
    """
    clip_model = load_model(backbone_of(cfg), "fp16", *_stated(cfg))
    if tokenizer_of(clip_model).end != OPENAI.end:
        raise ConfigError(
            f"{backbone_name(cfg)} has a tokenizer of its own, and {cfg.TRAINER.NAME} may read "
            "texts by OpenAI's: choose another MODEL.BACKBONE.NAME."
        )
    return clip_model


def load_clip(cfg: CfgNode, precision: str) -> CLIP:
    """Loads CLIP as `load_clip_to_cpu` does, in a precision, and checks INPUT.SIZE against it."""
    clip_model = load_model(backbone_of(cfg), precision, *_stated(cfg))
    check_image_size(cfg, clip_model)
    return clip_model


def check_image_size(cfg: CfgNode, model: CLIP) -> None:
    """Raises ConfigError unless INPUT.SIZE is what the model takes."""
    wanted, size = model.visual.input_resolution, _pair(cfg.INPUT.SIZE)
    if size != (wanted, wanted):
        raise ConfigError(
            f"INPUT.SIZE is {size}, but {backbone_name(cfg)}"
            f' takes images of {wanted} x {wanted} pixels: add INPUT.SIZE "({wanted}, {wanted})".'
        )


def _pair(size: int | Iterable[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
