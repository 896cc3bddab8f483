"""Checkpoints and layers, under the import path that other people's files use."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from dassl.utils.checkpoint import (
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)
from dassl.utils.errors import not_one_of
from dassl.utils.tools import count_num_param, tolist_if_not

__all__ = [
    "count_num_param",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
]

_WEIGHTS = {
    "normal": lambda weight, gain: nn.init.normal_(weight, std=gain),
    "xavier": nn.init.xavier_normal_,
    "kaiming": lambda weight, _: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
    "orthogonal": nn.init.orthogonal_,
}


def open_all_layers(model: nn.Module) -> None:
    """Puts a model into training and lets all its parameters learn."""
    model.train().requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | Iterable[str]) -> None:
    """Lets the named children of a model learn; the others stay in evaluation, without gradients.

    Raises:
        ValueError: the model has no child of that name.
    """
    model = model.module if isinstance(model, nn.DataParallel) else model
    names = list(tolist_if_not(open_layers) if isinstance(open_layers, str) else open_layers)
    children = dict(model.named_children())
    for name in names:
        if name not in children:
            raise ValueError(not_one_of("the layer to open", name, children))
    for name, child in children.items():
        child.train(name in names).requires_grad_(name in names)


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Draws the weights of convolutions and linear layers anew; biases 0, norms 1 and 0.

    Args:
        model: gets the weights.
        init_type: "normal" (of standard deviation `gain`), "xavier", "kaiming" or "orthogonal".
        gain: of the draw; "kaiming" has its own.

    Raises:
        ValueError: there is no such `init_type`.
    """
    if init_type not in _WEIGHTS:
        raise ValueError(not_one_of("init_type", init_type, _WEIGHTS))
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm2d)):
            if module.affine:
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            _WEIGHTS[init_type](module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
