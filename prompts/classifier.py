"""A run's class weights: one matrix behind CLIP's own image encoder, for any program that has it.

For methods that learn on the text side alone and take no notice of the picture, p(y | x) is
softmax(exp(s) f wᵀ), with f the image feature of length 1 and the rows of w the class features
(CoOp, arXiv 2109.01134, eq. 3). A linear probe is softmax(f wᵀ + b), with f as the encoder has it.

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
from prompts.preparation import preparation
from prompts.tensors import json_of, load, save
from trainers import is_foreign
from trainers.custom_clip import CustomCLIP

FORMAT = "prompt-learning classifier 1"


@dataclass(frozen=True)
class Classifier:
    """logits = scale · f wᵀ + b.

    Attributes:
        weight: w, (C, E); rows of length 1 where `normalized`.
        bias: b, (C,), or None.
        scale: exp(s), (), 1 for a linear probe.
        normalized: whether f has length 1.
    """

    weight: Tensor
    bias: Tensor | None
    scale: Tensor
    normalized: bool

    def __call__(self, features: Tensor) -> Tensor:
        """Image features (B, E), as the encoder gives them → logits (B, C)."""
        features = normalize(features) if self.normalized else features
        logits = self.scale * features @ self.weight.T
        return logits if self.bias is None else logits + self.bias

    @property
    def formula(self) -> str:
        if not self.normalized:
            return "logits = features @ weight.T + bias"
        unit = "features / features.norm(dim=-1, keepdim=True)"
        return f"logits = exp_logit_scale * ({unit}) @ weight.T"


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
        if type(model).logits is not CustomCLIP.logits:
            whole = hasattr(model.prompt_learner, "meta_net")  # see prompts.onnx_file
            raise ConfigError(
                f"{name} has not one feature a class for all pictures (they depend on the picture, "
                "or are several), so it has no single matrix. Export "
                + ("the whole: --as onnx; or " if whole else "")
                + "what it learned: --as prompts"
            )
        if type(model).encode_image is not CustomCLIP.encode_image:
            raise ConfigError(
                f"{name} learns the image encoder itself, so CLIP's own does not fit its class "
                "features. Export the whole: --as onnx"
            )
        if model.visual_prompts()[0] is not None:
            raise ConfigError(
                f"{name} has prompts in the image tower, so CLIP's own image encoder does not fit "
                "its class features. Export the whole: --as onnx; or the prompts: --as prompts"
            )
    return linear_head(predictor)


@torch.no_grad()
def linear_head(predictor: Predictor) -> Classifier:
    """Returns what stands behind the image encoder of the method, whatever that is."""
    trainer = predictor.trainer
    if hasattr(trainer, "head"):  # a linear probe
        weight, bias = trainer.head.weight.detach(), trainer.head.bias.detach()
        return Classifier(weight.cpu(), bias.cpu(), torch.ones(()), normalized=False)
    if isinstance(getattr(trainer, "model", None), CustomCLIP):
        scale, weight = trainer.model.logit_scale, trainer.model.text_features()
    else:
        scale, weight = trainer.clip_model.logit_scale, trainer.text_features
    weight = weight.detach().float().cpu()
    return Classifier(weight, None, scale.detach().float().exp().cpu(), normalized=True)


def export_classifier(predictor: Predictor, path: PathLike) -> None:
    """Writes a run's matrix as safetensors; the header has class names, CLIP, and the formula.

    Raises:
        ConfigError: see `class_weights`; or safetensors is not installed.
    """
    found = class_weights(predictor)
    tensors = {"weight": found.weight, "exp_logit_scale": found.scale}
    if found.bias is not None:
        tensors = {"weight": found.weight, "bias": found.bias}
    header = {
        "format": FORMAT,
        "formula": found.formula,
        "classnames": predictor.classnames,
        "trainer": predictor.run.cfg.TRAINER.NAME,
        "weights": predictor.trainer.weights_used() or {},
        "preparation": preparation(predictor.run.cfg),
    }
    save(path, tensors, header)


def load_classifier(path: PathLike) -> tuple[Classifier, list[str]]:
    """Returns a matrix and its class names.

    Raises:
        MissingFileError, CheckpointError: there is no such file, or it is damaged.
    """
    tensors, header = load(path, FORMAT)
    names, bias = json_of(header, "classnames", list, path), tensors.get("bias")
    scale = tensors.get("exp_logit_scale", torch.ones(()))
    return Classifier(tensors["weight"], bias, scale, normalized=bias is None), names
