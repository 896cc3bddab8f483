"""A name or a file → CLIP's towers, its tokenizer and its logit scale.

OpenAI's names and files are read by `openai`, those that begin with "open_clip:" by `open_clip`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dassl.utils.errors import ConfigError, not_one_of
from encoders import open_clip, openai
from encoders.families import check_family
from encoders.image import ImageEncoder
from encoders.open_clip import Backbone, Source, parsed
from encoders.openai import CLIP, build, read_weights
from encoders.text import TextEncoder
from encoders.tokens import tokenize, tokenizer_of

PRECISIONS = ("fp16", "fp32", "amp")


@dataclass(frozen=True)
class Towers:
    """A frozen CLIP: both towers and what belongs to them.

    Attributes:
        model: OpenAI's module, which holds the weights; or another package's under its names.
        text: prompts or token ids → features (N, E), not normalized.
        image: images (B, 3, H, W) → features (B, E), not normalized.
        logit_scale: factor of the cosine similarities, 1 / tau.
        image_size: height and width that the image tower takes, in pixels.
        context_length: tokens that the text tower takes.
        embed_dim: E.
    """

    model: CLIP
    text: TextEncoder
    image: ImageEncoder
    logit_scale: Tensor
    image_size: int
    context_length: int
    embed_dim: int

    def tokenizer(self, texts: list[str]) -> Tensor:
        """Texts → token ids (N, L); raises ConfigError where one has more than L tokens."""
        return tokenize(texts, self.context_length, by=tokenizer_of(self.model))


def load(
    name_or_file: Backbone,
    precision: str = "fp32",
    device: torch.device | str = "cpu",
    activation: str = "",
    head_width: int = 0,
) -> Towers:
    """Loads a frozen CLIP.

    Args:
        name_or_file: a name of OpenAI's, "tiny", or a weights file in OpenAI's layout; or
            "open_clip:NAME/TAG", or an `open_clip.Source`.
        precision: "fp16": half precision but for norms and embeddings; "fp32" and "amp": float32,
            exactly the numbers in the file.
        device: where the weights shall be.
        activation, head_width: what is known of the file, see `families`.

    Raises:
        ConfigError, UnknownNameError, CheckpointError, DownloadError: see `load_model`.
    """
    model = load_model(name_or_file, precision, activation, head_width).to(device)
    freeze(model)
    return Towers(
        model=model,
        text=TextEncoder(model),
        image=ImageEncoder(model.visual),
        logit_scale=model.logit_scale.exp(),
        image_size=model.visual.input_resolution,
        context_length=model.positional_embedding.shape[0],
        embed_dim=model.text_projection.shape[1],
    )


def load_model(
    name_or_file: Backbone, precision: str, activation: str = "", head_width: int = 0
) -> CLIP:
    """Loads a CLIP onto the CPU, in evaluation mode; see `load` for the arguments.

    Raises:
        ConfigError: there is no such precision, the weights are not of OpenAI's kind, or towers of
            open_clip's cannot be used.
        UnknownNameError: (a KeyError) there is neither such a name nor such a file.
        CheckpointError: the file does not hold a CLIP in OpenAI's layout.
        DownloadError: the weights cannot be fetched.
    """
    if precision not in PRECISIONS:
        raise ConfigError(not_one_of("the precision", precision, PRECISIONS))
    backbone = parsed(name_or_file)
    if isinstance(backbone, Source):
        return open_clip.load_model(backbone, precision)
    state_dict = read_weights(backbone)
    path = openai.weights_file(backbone)
    model = build(state_dict, path)
    check_family(state_dict, path, activation, head_width)
    if precision != "fp16":
        model.float()
        model.load_state_dict(_weights_only(state_dict))  # undo the rounding to half precision
    return model


def weights_file(name_or_file: Backbone) -> Path:
    """Returns the weights file that a name stands for, or the file itself.

    One of OpenAI's may not be there yet; what a tag of open_clip's stands for is downloaded.

    Raises:
        ConfigError, UnknownNameError, DownloadError: there is none.
    """
    backbone = parsed(name_or_file)
    if isinstance(backbone, Source):
        return open_clip.weights_file(backbone)
    return openai.weights_file(backbone)


def freeze(module: nn.Module) -> None:
    """Turns off gradients for all parameters."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def _weights_only(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    extra = ("input_resolution", "context_length", "vocab_size")  # in OpenAI's archives
    return {key: value for key, value in state_dict.items() if key not in extra}
