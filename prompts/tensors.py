"""safetensors: tensors behind a header of texts that anybody can read, and nothing that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dassl.utils import CheckpointError, MissingFileError, write_atomically
from dassl.utils.files import PathLike, parse_json
from prompts.optional import package

WHY = "a file of safetensors"


def save(path: PathLike, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes tensors, with a header of texts; what is no text is written as JSON."""
    library = package("safetensors.torch", WHY)
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in header.items()}
    write_atomically(path, lambda part: library.save_file(kept, part, texts))


def load(path: PathLike, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the header of a file.

    Args:
        path: the file.
        kind: what "format" in its header must be.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is damaged, or of another kind.
    """
    library = package("safetensors", WHY)
    if not Path(path).is_file():
        raise MissingFileError(f"there is no file {path}")
    try:
        with library.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (library.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from None
    if header.get("format") != kind:
        raise CheckpointError(
            f"{path} has the format {header.get('format')!r} in its header; expected {kind!r}"
        )
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor.float()).all():
            raise CheckpointError(f"{path} holds {name} with other values than finite numbers")
    return tensors, header


def json_of(header: Mapping[str, str], key: str, kind: type, path: PathLike) -> Any:
    """Returns an entry of a header that is JSON.

    Raises:
        CheckpointError: it is missing, or no JSON of this kind.
    """
    try:
        value = parse_json(header[key])
    except (KeyError, ValueError):
        value = None
    if not isinstance(value, kind):
        raise CheckpointError(f"{path} is damaged: {key} in its header is no {kind.__name__}")
    return value
