"""`from clip import clip`: names, files and texts, with the embedded CLIP among the names."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import torch
from clip.model import build_model
from torch import nn

from dassl.utils import UnknownNameError
from dassl.utils.download import download
from dassl.utils.errors import not_one_of
from dassl.utils.files import user_cache_home
from encoders.openai import MODEL_URLS, PACKAGE, TINY, WIDE, read_weights, weights_file
from encoders.openai import tokenize_texts as tokenize
from encoders.openai import tokenizer as _tokenizer
from encoders.tiny import complete_file

__all__ = ["_tokenizer", "available_models", "build_model", "load", "tokenize"]

_transform = importlib.import_module(f"{PACKAGE}.clip")._transform


class _Models(dict):
    """Name → address; a weights file stands for itself."""

    def __missing__(self, name: str) -> str:
        if Path(name).expanduser().is_file():
            return name
        raise UnknownNameError(not_one_of("MODEL.BACKBONE.NAME", name, self) + " Or name a file.")


_MODELS = _Models({**MODEL_URLS, TINY: TINY, WIDE: WIDE})


def available_models() -> list[str]:
    """Returns the names that `load` takes."""
    return list(_MODELS)


def _download(url: str, root: str | None = None) -> str:
    """Returns the file of an address in `_MODELS`, which is fetched unless it is there.

    Args:
        url: the address; "tiny" or "tiny-512", whose file is written; or a file.
        root: folder of the files; None: the one that all of us use.
    """
    if url in (TINY, WIDE):
        return str(complete_file(Path(root or user_cache_home()), wide=url == WIDE))
    if url not in MODEL_URLS.values():
        return str(Path(url).expanduser())
    name = next(name for name, address in MODEL_URLS.items() if address == url)
    path = weights_file(name) if root is None else Path(root) / weights_file(name).name
    download(url, path, sha256=url.split("/")[-2])
    return str(path)


def load(
    name: str,
    device: str | torch.device | None = None,
    jit: bool = False,
    download_root: str | None = None,
) -> tuple[nn.Module, Any]:
    """Returns a CLIP, in float32 on a CPU, and what turns a PIL image into its input.

    Raises:
        ValueError: `jit` is on.
    """
    if jit:
        raise ValueError("jit is True; only False, the plain model, is there")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    path = _download(_MODELS[os.fspath(name)], download_root)
    model = build_model(read_weights(Path(path))).to(device)
    if device.type == "cpu":
        model.float()
    return model, _transform(model.visual.input_resolution)
