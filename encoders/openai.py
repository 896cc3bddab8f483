"""OpenAI's CLIP: its names, weights files and classes. The only file that touches the package.

On the package index it is called `clip-anytorch`; the import name is `clip`. In the repository root
that name is taken, by `clip.py` for other people's files, or by a folder that they bring. So the
installed package is looked for elsewhere, and goes by a name of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dassl.utils import CheckpointError, UnknownNameError, load_checkpoint
from dassl.utils.checkpoint import check_finite, is_plain
from dassl.utils.cli import stop
from dassl.utils.download import DownloadError, download
from dassl.utils.errors import not_one_of
from dassl.utils.files import listed, user_cache_home
from dassl.utils.logger import get_logger
from encoders.jit_archive import is_jit_archive, read_jit_archive
from encoders.tiny import ASSET, complete_file, load_tiny_state_dict

if TYPE_CHECKING:
    from clip.clip import _MODELS as MODEL_URLS
    from clip.clip import _tokenizer as tokenizer
    from clip.clip import tokenize as tokenize_texts
    from clip.model import CLIP, Transformer, VisionTransformer, build_model

logger = get_logger(__name__)

MAX_LOGIT_SCALE = 10  # a training ends at most at ln 100; e^10 leaves room for any
# What counts as a whole number: batches of a ResNet, and three sizes in OpenAI's archives.
_COUNTS = ("num_batches_tracked", "input_resolution", "context_length", "vocab_size")
PACKAGE = "openai_clip"  # what `clip` is called here
MEND = "pip install --force-reinstall --no-deps clip-anytorch==2.6.0"


def _import_installed() -> None:
    here = Path(__file__)
    places = [p for p in sys.path if not _is_same(Path(p, here.parent.name, here.name), here)]
    found = PathFinder.find_spec("clip", places)
    files = [Path(place) for place in (found and found.submodule_search_locations) or ()]
    if found is None or found.origin is None:
        stop(f"OpenAI's package clip is not installed: {MEND}")
    if not any(Path(place, "simple_tokenizer.py").is_file() for place in files):
        place = Path(found.origin).parent
        stop(
            f"the package clip in {place} is another program than OpenAI's CLIP: "
            f"pip uninstall -y clip && {MEND}"
        )
    spec = importlib.util.spec_from_file_location(
        PACKAGE, found.origin, submodule_search_locations=found.submodule_search_locations
    )
    assert spec is not None and spec.loader is not None
    sys.modules[PACKAGE] = package = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clip-anytorch imports pkg_resources, which warns
        spec.loader.exec_module(package)


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


_import_installed()
if not TYPE_CHECKING:
    _clip = importlib.import_module(f"{PACKAGE}.clip")
    MODEL_URLS, tokenizer, tokenize_texts = _clip._MODELS, _clip._tokenizer, _clip.tokenize
    _model = importlib.import_module(f"{PACKAGE}.model")
    CLIP, build_model = _model.CLIP, _model.build_model
    Transformer, VisionTransformer = _model.Transformer, _model.VisionTransformer

__all__ = [
    "BACKBONES",
    "CLIP",
    "TINY",
    "WIDE",
    "Transformer",
    "VisionTransformer",
    "advance_rng_like_building",
    "build",
    "fetch_weights",
    "read_weights",
    "tokenize_texts",
    "tokenizer",
    "weights_file",
]

TINY = "tiny"  # the small CLIP that ships with the project
WIDE = "tiny-512"  # the same in ViT-B/16's widths, for other people's files that fix them
BACKBONES = (*MODEL_URLS, TINY)
CACHE = Path("~/.cache/clip")  # where the clip package keeps its downloads as well


def weights_file(name_or_file: str | Path) -> Path:
    """Returns the file that a name stands for, which may not be there yet, or the file itself.

    Raises:
        UnknownNameError: (a KeyError) there is neither such a name nor such a file.
    """
    if not isinstance(name_or_file, (str, Path)):
        raise UnknownNameError(f"{name_or_file} is none of OpenAI's, whose weights are read here")
    path = Path(name_or_file).expanduser()
    if isinstance(name_or_file, Path):
        return path
    if name_or_file == TINY:
        return ASSET
    if name_or_file == WIDE:
        return complete_file(user_cache_home(), wide=True)
    if name_or_file in MODEL_URLS:
        folder = Path(os.environ.get("CLIP_CACHE", CACHE)).expanduser()
        return folder / MODEL_URLS[name_or_file].rsplit("/", 1)[1]
    if path.is_file():
        return path
    raise UnknownNameError(
        not_one_of("the backbone", name_or_file, BACKBONES) + " Or name a weights file."
    )


def read_weights(name_or_file: str | Path) -> dict[str, Tensor]:
    """Returns a state dict in OpenAI's layout; what a name stands for is downloaded first.

    Raises:
        UnknownNameError: (a KeyError) there is neither such a name nor such a file.
        CheckpointError: the file does not hold a CLIP in OpenAI's layout.
        DownloadError: the weights cannot be fetched.
    """
    path = weights_file(name_or_file)
    logger.debug(f"Weights from {path}")
    if path == ASSET:
        return load_tiny_state_dict()
    if name_or_file in MODEL_URLS:
        _fetch(str(name_or_file), path)
    state_dict = read_jit_archive(path) if is_jit_archive(path) else _read_state_dict(path)
    for key in ("visual.conv1.weight", "token_embedding.weight", "text_projection", "logit_scale"):
        if key not in state_dict:
            held = listed([name[:80] for name in state_dict]) or "nothing"
            raise CheckpointError(
                f"{path} is no CLIP in OpenAI's layout: it lacks {key}. It holds {held}."
            )
    for key, value in state_dict.items():
        _check_tensor(key, value, path)
    check_finite(state_dict, path)
    _check_meaning(state_dict, path)
    return state_dict


def build(state_dict: dict[str, Tensor], path: Path) -> CLIP:
    """Builds a CLIP in evaluation mode; convolutions, products and projections in half precision.

    Args:
        state_dict: in OpenAI's layout.
        path: where it was read, for the error message.

    Raises:
        CheckpointError: it does not hold a CLIP in OpenAI's layout.
    """
    try:
        # Shapes first: a few wrong ones could ask for any amount of memory. This takes 0.05 s.
        with torch.device("meta"):
            build_model({key: value.to("meta") for key, value in state_dict.items()})
        return build_model(dict(state_dict))  # a copy: build_model takes entries out
    except (
        *(RuntimeError, LookupError, AttributeError, ValueError, AssertionError),
        *(ArithmeticError, TypeError, MemoryError),
    ) as error:
        raise CheckpointError(f"{path} is no CLIP in OpenAI's layout: {error}") from None


def advance_rng_like_building(model: CLIP) -> None:
    """Draws what building a CLIP of the model's sizes draws from torch's generator.

    Loading another package's draws nothing.
    """
    if type(model) is not CLIP:
        return
    visual, text = model.visual, model.transformer
    if hasattr(visual, "class_embedding"):
        layers: int | tuple[int, ...] = visual.transformer.layers
        width, _, patch, _ = visual.conv1.weight.shape
    else:
        layers = tuple(len(getattr(visual, f"layer{i}")) for i in (1, 2, 3, 4))
        width, patch = visual.layer1[0].conv1.weight.shape[0], None
    heads = text.resblocks[0].attn.num_heads
    CLIP(
        *(model.text_projection.shape[1], visual.input_resolution, layers, width, patch),
        *(model.context_length, model.vocab_size, text.width, heads, text.layers),
    )


def fetch_weights(name: str) -> None:
    """Downloads what a name of OpenAI's stands for, unless it is there; other names need nothing.

    Raises:
        DownloadError: the weights cannot be fetched; the message says what to do by hand.
    """
    if name in MODEL_URLS:
        _fetch(name, weights_file(name))


def _fetch(name: str, path: Path) -> None:
    url = MODEL_URLS[name]
    sha256 = url.split("/")[-2]  # OpenAI puts the checksum into the address
    try:
        download(url, path, sha256=sha256)
    except DownloadError as error:
        said = str(error).rstrip(". ")
        if str(path) not in said:
            said += f". Fetch that file elsewhere and put it there: {path}"
        raise DownloadError(
            f"{said}\nOr name it where it lies: --backbone-path FILE (MODEL.BACKBONE.PATH). For "
            f"first steps without a download, on the handwritten digits: --backbone {TINY}"
        ) from None


def _check_tensor(key: str, value: object, path: Path) -> None:
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise CheckpointError(f"{path} is no CLIP in OpenAI's layout: its {key} is of type {kind}")
    stored = value.untyped_storage().nbytes() if is_plain(value) else -1
    if value.numel() * value.element_size() > stored:
        # With a stride of 0, one number can pass for any count of them.
        raise CheckpointError(f"{path} is damaged: {key} claims more numbers than it holds")
    if not value.is_floating_point() and key.rpartition(".")[2] not in _COUNTS:
        raise CheckpointError(
            f"{path} holds {key} as {str(value.dtype).removeprefix('torch.')}; weights are "
            "floating-point numbers. Save them as float32 or float16."
        )


def _check_meaning(state_dict: dict[str, Tensor], path: Path) -> None:
    """Raises CheckpointError for tensors that fit, but cannot mean what OpenAI's do."""
    known, rows = len(tokenizer.encoder), state_dict["token_embedding.weight"].shape[:1]
    if rows != (known,):
        raise CheckpointError(
            f"{path} has token_embedding.weight for {rows[0] if rows else 1:,} tokens, and "
            f"OpenAI's tokenizer has {known:,}: it was trained with another one"
        )
    scale = state_dict["logit_scale"]
    if scale.numel() != 1 or not 0 <= scale.item() <= MAX_LOGIT_SCALE:
        given = f"{scale.item():g}" if scale.numel() == 1 else f"{scale.numel():,} numbers"
        raise CheckpointError(
            f"{path} has logit_scale {given}; expected the logarithm of the scale, one number from "
            f"0 to {MAX_LOGIT_SCALE} (OpenAI's is 4.6, for a scale of 100)"
        )


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    content = load_checkpoint(str(path))
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}; expected a state dict")
    state_dict = {str(key).removeprefix("module."): value for key, value in content.items()}
    if len(state_dict) < len(content):
        raise CheckpointError(f"{path} holds some tensors both with and without 'module.' in front")
    return state_dict
