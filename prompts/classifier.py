"""A run's class weights: one matrix behind CLIP's own image encoder, for any program that has it.

For methods that learn on the text side alone and take no notice of the picture, p(y | x) is
softmax(exp(s) f wᵀ), with f the image feature of length 1 and the rows of w the class features
(CoOp, arXiv 2109.01134, eq. 3). A linear probe is softmax(f wᵀ + b), with f as the encoder has it.
A layer on image features comes before: f A^T in the place of f.

Shapes: B pictures, C classes, E embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dassl.utils import ConfigError
from dassl.utils.files import PathLike
from encoders.tower import normalize
from prompts.predictor import Predictor
from prompts.preparation import preparation, weights_of
from prompts.tensors import json_of, load, save
from trainers import is_foreign
from trainers.custom_clip import CustomCLIP
from trainers.dept import DecoupledCLIP
from trainers.fine_tuning import WithImageLayer

FORMAT = "prompt-learning classifier 1"


@dataclass(frozen=True)
class Classifier:
    """logits = scale · f wᵀ + b.

    Attributes:
        weight: w, (C, E); rows of length 1 where `normalized`.
        bias: b, (C,), or None.
        scale: exp(s), (), 1 for a linear probe.
        normalized: whether f has length 1.
        layer: A, (E, E), what f goes through first; or None.
    """

    weight: Tensor
    bias: Tensor | None
    scale: Tensor
    normalized: bool
    layer: Tensor | None = None

    def __call__(self, features: Tensor) -> Tensor:
        """Image features (B, E), as the encoder gives them → logits (B, C)."""
        features = features if self.layer is None else features @ self.layer.T
        features = normalize(features) if self.normalized else features
        logits = self.scale * features @ self.weight.T
        return logits if self.bias is None else logits + self.bias

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file holds, under the names that `formula` uses."""
        factor = {"exp_logit_scale": self.scale} if self.bias is None else {"bias": self.bias}
        layer = {} if self.layer is None else {"image_layer": self.layer}
        return {"weight": self.weight, **factor, **layer}

    @property
    def formula(self) -> str:
        if not self.normalized:
            return "logits = features @ weight.T + bias"
        first = "" if self.layer is None else "features = features @ image_layer.T; "
        unit = "features / features.norm(dim=-1, keepdim=True)"
        return f"{first}logits = exp_logit_scale * ({unit}) @ weight.T"


@torch.no_grad()
def class_weights(predictor: Predictor) -> Classifier:
    """Returns the matrix of a run.

    Raises:
        ConfigError: its method has no single matrix; the message says what can be had.
    """
    trainer, name = predictor.trainer, predictor.run.cfg.TRAINER.NAME
    model = getattr(trainer, "model", None)
    if is_foreign(type(trainer)):
        raise ConfigError(
            f"{name} is somebody else's: whether one matrix holds it is not known. Export what it "
            "learned: --as prompts"
        )
    if isinstance(model, CustomCLIP):
        reason = _no_matrix(model)
        if reason:
            raise ConfigError(
                f"{name} {reason}. Export the whole: --as onnx; or what it learned: --as prompts"
            )
    return linear_head(predictor)


def _no_matrix(model: CustomCLIP) -> str:
    """Returns why no single matrix behind CLIP's image encoder holds a model; "" if one does."""
    if isinstance(model, DecoupledCLIP) and model.head.knows:
        return "fuses two predictions, so it has no single matrix"
    if not scores_by_matrix(model):
        return (
            "has not one feature a class for all pictures (they depend on the picture, or are "
            "several), so it has no single matrix"
        )
    if type(model).encode_image is not CustomCLIP.encode_image:
        return "learns the image encoder itself, so CLIP's own does not fit its class features"
    if model.visual_prompts()[0] is not None:
        return (
            "has prompts in the image tower, so CLIP's own image encoder does not fit its class "
            "features"
        )
    return ""


def scores_by_matrix(model: CustomCLIP) -> bool:
    """Whether logits are `linear_head`'s, of a model whose head, if there is one, is left out."""
    known = (CustomCLIP.logits, WithImageLayer.logits, DecoupledCLIP.logits)
    return type(model).logits in known


@torch.no_grad()
def linear_head(predictor: Predictor) -> Classifier:
    """Returns what stands behind the image encoder of the method, whatever that is."""
    trainer = predictor.trainer
    model = getattr(trainer, "model", None)
    if hasattr(trainer, "head"):  # a linear probe
        weight, bias = trainer.head.weight.detach(), trainer.head.bias.detach()
        return Classifier(weight.cpu(), bias.cpu(), torch.ones(()), normalized=False)
    if isinstance(model, CustomCLIP):
        scale, weight = model.logit_scale, model.text_features()
    else:
        scale, weight = trainer.clip_model.logit_scale, trainer.text_features
    layer = model.learned[model.part].weight if isinstance(model, WithImageLayer) else None
    return Classifier(
        weight.detach().float().cpu(),
        None,
        scale.detach().float().exp().cpu(),
        normalized=True,
        layer=None if layer is None else layer.detach().float().cpu(),
    )


def export_classifier(predictor: Predictor, path: PathLike) -> None:
    """Writes a run's matrix as safetensors; the header has class names, CLIP, and the formula.

    Raises:
        ConfigError: see `class_weights`; or safetensors is not installed.
    """
    found = class_weights(predictor)
    header = {
        "format": FORMAT,
        "formula": found.formula,
        "classnames": predictor.classnames,
        "trainer": predictor.run.cfg.TRAINER.NAME,
        "weights": weights_of(predictor),
        "preparation": preparation(predictor.run.cfg),
    }
    save(path, found.tensors, header)


def load_classifier(path: PathLike) -> tuple[Classifier, list[str]]:
    """Returns a matrix and its class names.

    Raises:
        MissingFileError, CheckpointError: there is no such file, or it is damaged.
    """
    tensors, header = load(path, FORMAT)
    names, bias = json_of(header, "classnames", list, path), tensors.get("bias")
    scale = tensors.get("exp_logit_scale", torch.ones(()))
    layer = tensors.get("image_layer")
    return Classifier(tensors["weight"], bias, scale, bias is None, layer), names
