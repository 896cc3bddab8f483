"""Small tools: seeding, the environment report, counting parameters.

Other people's files import what `files`, `images` and `registry` define from here as well.
"""

from __future__ import annotations

import difflib
import gc
import importlib.metadata
import platform
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import PIL
import torch
from torch import nn
from torch.utils import collect_env

from dassl.utils.files import (
    PathLike,
    check_isfile,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    write_json,
)
from dassl.utils.images import read_image
from dassl.utils.registry import check_availability

__all__ = [
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "without_garbage_collection",
    "write_json",
]


def set_random_seed(seed: int) -> None:
    """Seeds Python's `random`, numpy and torch (all devices) with `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@cache
def collect_env_info(use_cuda: bool = True) -> str:
    """Returns a report of machine, driver and package versions for the log, made once a process.

    Args:
        use_cuda: whether CUDA may be initialized, which torch's report does where it can.
    """
    hidden = nullcontext() if use_cuda else patch.object(torch.cuda, "is_available", lambda: False)
    with hidden, patch.object(collect_env, "run", _answer_for_pip):
        report = collect_env.get_pretty_env_info()
    own = f"        Python ({platform.python_version()})\n        Pillow ({PIL.__version__})"
    return f"{report}\n{own}"


def _answer_for_pip(
    command: Any, run: Callable[[Any], tuple[int, str, str]] = collect_env.run
) -> tuple[int, str, str]:
    """Runs a command of torch's report; `pip list`, which takes a second, is answered here."""
    if "-mpip" not in command:
        return run(command)
    packages = {(d.metadata["Name"] or "", d.version) for d in importlib.metadata.distributions()}
    return 0, "\n".join(f"{name}=={version}" for name, version in sorted(packages)), ""


def tolist_if_not(x: Any) -> list:
    """Returns `x` if it is a list, else `[x]`."""
    return x if isinstance(x, list) else [x]


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str | None:
    """Returns the text of `b` that is most like `a`; None: there is none in `b`."""
    return next(iter(difflib.get_close_matches(a, list(b), n=1, cutoff=0)), None)


def download_url(url: str, dst: PathLike, from_gdrive: bool = False) -> None:
    """Fetches `url` to the file `dst`; see `dassl.utils.download`."""
    from dassl.utils.download import download, download_gdrive  # loads the network's libraries

    (download_gdrive if from_gdrive else download)(url, dst)


def count_num_param(model: nn.Module | None = None, params: Any = None) -> int:
    """Counts the numbers in the parameters of `model`, or in `params`.

    Args:
        model: a module; its parameters are counted.
        params: instead of a module, one parameter, an iterable of parameters, or an iterable of
            optimizer groups (dictionaries with a "params" entry).

    Raises:
        ValueError: neither is given.
    """
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("count_num_param needs a model or params; both are None")
    return sum(p.numel() for p in _flatten(params))


def _flatten(params: Any) -> Iterable[torch.Tensor]:
    if isinstance(params, torch.Tensor):
        yield params
    elif isinstance(params, dict):
        yield from _flatten(params["params"])
    else:
        for item in params:
            yield from _flatten(item)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Leaves reference cycles alone for a while.

    The collector looks again and again at all objects that are there; where a million are made
    that stay, that takes longer than making them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
