"""Other people's trainers on a run without a GPU, which many of them take for granted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

# On a CPU most of these take 5 to 30 times as long in half precision as in float32.
PRODUCTS = (
    *(F.linear, F.conv2d, F.multi_head_attention_forward, F.scaled_dot_product_attention),
    *(torch.matmul, torch.bmm, torch.mm, torch.einsum),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mm),
)


class OnTheCPU(TorchFunctionMode):
    """Takes a GPU that torch is asked for to be the CPU; sums half-precision products in float32.

    The latter is what GPUs do; the results are rounded to half precision as there.
    """

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.cuda:
            return args[0]
        if "device" in kwargs:
            kwargs["device"] = _on_cpu(kwargs["device"])
        if func is Tensor.to:
            args = tuple("cpu" if type(x) is int else _on_cpu(x) for x in args)
        elif func in PRODUCTS and _all_half((*args, *kwargs.values())):
            args = tuple(map(_to_full, args))
            kwargs = {key: _to_full(value) for key, value in kwargs.items()}
            return _to_half(func(*args, **kwargs))
        return func(*args, **kwargs)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, (str, torch.device)) and torch.device(value).type == "cuda":
        return torch.device("cpu")
    return value


def _all_half(values: tuple) -> bool:
    dtypes = {value.dtype for value in values if isinstance(value, Tensor)}
    return torch.float16 in dtypes and not dtypes & {torch.float32, torch.float64}


def _to_full(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _to_half(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_to_half, value))
    return value.half() if isinstance(value, Tensor) else value


def _on_no_gpu(module: nn.Module, args: tuple) -> None:
    """Calls what a DataParallel holds as it is: made beside a GPU, it wants to spread it."""
    if isinstance(module, nn.DataParallel):
        module.device_ids = []


_load_anywhere = torch.load


def _load(file: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
    """As `torch.load`; what was on a GPU comes to the CPU."""
    return _load_anywhere(file, _on_cpu(map_location) or "cpu", *args, **kwargs)


# Functions that ask a GPU for something, and what they do without.
INSTEAD = {
    **dict.fromkeys(("synchronize", "set_device"), lambda *_, **__: None),
    "current_device": lambda: 0,
    "device": lambda _: nullcontext(),
    "get_device_name": lambda *_: "the CPU",
}
_now: list[ExitStack] = []  # what ends it


def keep_on_the_cpu(wanted: bool) -> None:
    """From now on, this thread does what `OnTheCPU` says, or no longer.

    A trainer is built here and run elsewhere, so there is no block that it could be a context of.
    """
    if wanted and not _now:
        _now.append(ExitStack())
        _now[0].enter_context(OnTheCPU())
        _now[0].enter_context(register_module_forward_pre_hook(_on_no_gpu))
        _now[0].enter_context(mock.patch.object(torch, "load", _load))
        for name, instead in INSTEAD.items():
            _now[0].enter_context(mock.patch.object(torch.cuda, name, instead))
    elif _now and not wanted:
        _now.pop().close()
