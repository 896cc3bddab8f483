"""Loading CLIP: the only file that touches the `clip` package (on the index: `clip-anytorch`)."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from dassl.utils import CheckpointError, ConfigError, load_checkpoint
from dassl.utils.download import DownloadError, download
from dassl.utils.errors import not_one_of
from trainers.tiny_clip import ASSET, load_tiny_state_dict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # clip-anytorch imports pkg_resources, which warns
    import clip
    from clip.clip import _MODELS as MODEL_URLS
    from clip.clip import _tokenizer as tokenizer
    from clip.model import CLIP, build_model

__all__ = [
    "BACKBONES",
    "CLIP",
    "backbone_name",
    "backbone_problems",
    "check_image_size",
    "freeze",
    "load_clip",
    "load_clip_to_cpu",
    "resolve_precision",
    "token_count",
    "tokenize",
    "weights_file",
]

TINY = "tiny"  # the small CLIP that ships with the project
BACKBONES = (*MODEL_URLS, TINY)
PRECISIONS = ("fp16", "fp32", "amp")
CACHE = Path("~/.cache/clip")  # where the clip package keeps its downloads as well


def backbone_name(cfg: CfgNode) -> str:
    """Returns what to call the backbone in messages: its file, or OpenAI's name."""
    return cfg.MODEL.BACKBONE.PATH or cfg.MODEL.BACKBONE.NAME


def backbone_problems(cfg: CfgNode) -> list[str]:
    """Returns what is wrong with MODEL.BACKBONE, as sentences."""
    backbone = cfg.MODEL.BACKBONE
    if backbone.PATH:
        path = Path(backbone.PATH).expanduser()
        return [] if path.is_file() else [f"MODEL.BACKBONE.PATH: file {path} does not exist."]
    if backbone.NAME in BACKBONES:
        return []
    return [
        not_one_of("MODEL.BACKBONE.NAME", backbone.NAME, BACKBONES)
        + " For a weights file of your own, set MODEL.BACKBONE.PATH."
    ]


def weights_file(cfg: CfgNode) -> Path:
    """Returns the file that MODEL.BACKBONE stands for; what a name stands for may not be there yet.

    Raises:
        ConfigError: MODEL.BACKBONE is wrong.
    """
    problems = backbone_problems(cfg)
    if problems:
        raise ConfigError(problems)
    backbone = cfg.MODEL.BACKBONE
    if backbone.PATH:
        return Path(backbone.PATH).expanduser()
    if backbone.NAME == TINY:
        return ASSET
    folder = Path(os.environ.get("CLIP_CACHE", CACHE)).expanduser()
    return folder / MODEL_URLS[backbone.NAME].rsplit("/", 1)[1]


def load_clip_to_cpu(cfg: CfgNode) -> CLIP:
    """Loads the CLIP that MODEL.BACKBONE stands for, onto the CPU, in evaluation mode.

    As in the public implementation, convolution, linear and projection weights are in half
    precision; call `.float()` for full precision.

    Raises:
        ConfigError: MODEL.BACKBONE is wrong.
        CheckpointError: the file does not hold a CLIP in OpenAI's layout.
        DownloadError: the weights cannot be fetched.
    """
    return _build(_read_weights(cfg), weights_file(cfg))


def load_clip(cfg: CfgNode, precision: str) -> CLIP:
    """Loads CLIP as `load_clip_to_cpu` does, in a precision, and checks INPUT.SIZE against it.

    Args:
        cfg: MODEL.BACKBONE and INPUT.SIZE are read.
        precision: "fp16": half precision but for norms and embeddings; "fp32" and "amp": float32,
            exactly the numbers in the file.
    """
    state_dict = _read_weights(cfg)
    model = _build(state_dict, weights_file(cfg))
    if precision != "fp16":
        model.float()
        model.load_state_dict(_weights_only(state_dict))  # undo the rounding to half precision
    check_image_size(cfg, model)
    return model


def resolve_precision(prec: str, device: torch.device, key: str) -> str:
    """Returns the precision to compute in: what was asked for on a GPU, fp32 on a CPU."""
    if prec == "fp32" or device.type == "cuda":
        return prec
    print(f"{key} is {prec}, which needs a GPU; computing in fp32 on the CPU")
    return "fp32"


def freeze(module: nn.Module) -> None:
    """Turns off gradients for all parameters."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def token_count(text: str) -> int:
    """Returns the number of tokens of a text, start and end not counted."""
    return len(tokenizer.encode(text))


def tokenize(texts: list[str], context_length: int = 77, names: list[str] | None = None) -> Tensor:
    """Turns texts into token ids.

    Args:
        texts: N texts.
        context_length: L, positions of the text tower.
        names: what each text is about, for the error message.

    Returns:
        (N, L) int64, zero after the end token (the largest id of a row).

    Raises:
        ConfigError: texts have more than L tokens; each is named.
    """
    too_long = [
        f"the prompt of {(names or texts)[i]!r} has {token_count(text) + 2} tokens, but CLIP reads "
        f"{context_length}: shorten the class name or use fewer context words (N_CTX)"
        for i, text in enumerate(texts)
        if token_count(text) + 2 > context_length  # start and end token
    ]
    if too_long:
        raise ConfigError(too_long)
    return clip.tokenize(texts, context_length=context_length)


# --- weights files --------------------------------------------------------------------------------


def _read_weights(cfg: CfgNode) -> dict[str, Tensor]:
    """Returns a state dict in OpenAI's layout."""
    path = weights_file(cfg)
    if path == ASSET:
        return load_tiny_state_dict()
    if not cfg.MODEL.BACKBONE.PATH:
        _fetch(cfg.MODEL.BACKBONE.NAME, path)
    state_dict = _read_jit_archive(path) if _is_jit_archive(path) else _read_state_dict(path)
    missing = [
        key
        for key in ("visual.conv1.weight", "token_embedding.weight", "text_projection")
        if key not in state_dict
    ]
    if missing:
        raise CheckpointError(f"{path} is no CLIP in OpenAI's layout: it lacks {missing[0]}")
    return state_dict


def _fetch(name: str, path: Path) -> None:
    url = MODEL_URLS[name]
    sha256 = url.split("/")[-2]  # OpenAI puts the checksum into the address
    try:
        download(url, path, sha256=sha256)
    except DownloadError as error:
        raise DownloadError(
            f"{error} Or fetch {url} elsewhere and name the file with MODEL.BACKBONE.PATH "
            "(--backbone-path)."
        ) from None


def _is_jit_archive(path: Path) -> bool:
    """A TorchScript archive is a zip file with constants beside the data."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith("/constants.pkl") for name in file.namelist())
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def _read_jit_archive(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer torch announces the end of TorchScript
            return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{path} is a damaged JIT archive: {error}") from None


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    content = load_checkpoint(str(path))
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}; expected a state dict")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _build(state_dict: dict[str, Tensor], path: Path) -> CLIP:
    try:
        return build_model(dict(state_dict))  # a copy: build_model takes entries out
    except (RuntimeError, LookupError, AttributeError, ValueError, AssertionError) as error:
        raise CheckpointError(f"{path} is no CLIP in OpenAI's layout: {error}") from None


def _weights_only(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    extra = ("input_resolution", "context_length", "vocab_size")  # in OpenAI's archives
    return {key: value for key, value in state_dict.items() if key not in extra}


def check_image_size(cfg: CfgNode, model: CLIP) -> None:
    """Raises ConfigError unless INPUT.SIZE is what the model takes."""
    size = cfg.INPUT.SIZE
    wanted = model.visual.input_resolution
    size = (size, size) if isinstance(size, int) else tuple(size)
    if size != (wanted, wanted):
        raise ConfigError(
            f"INPUT.SIZE is {size}, but {backbone_name(cfg)}"
            f' takes images of {wanted} x {wanted} pixels: add INPUT.SIZE "({wanted}, {wanted})".'
        )
