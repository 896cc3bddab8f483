"""Optimisers by name, with one learning rate or a lower one for pretrained layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from dassl.optim.radam import RAdam
from dassl.utils.errors import ConfigError, not_one_of
from dassl.utils.logger import get_logger

logger = get_logger(__name__)

AVAI_OPTIMS = ("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw")


def build_optimizer(
    model: nn.Module | Iterable[Any],
    optim_cfg: CfgNode,
    param_groups: Iterable[Any] | None = None,
) -> torch.optim.Optimizer:
    """Builds the optimiser that `OPTIM.NAME` asks for.

    Args:
        model: a module, or parameters or parameter groups as torch.optim takes them. Frozen
            parameters of a module are included: an optimiser skips what has no gradient, and the
            numbering of the parameters in a checkpoint must not depend on what was frozen.
        optim_cfg: the OPTIM node.
        param_groups: if given, what to optimise; `model` and OPTIM.STAGED_LR are ignored.

    Raises:
        ConfigError: (a ValueError) OPTIM.NAME is unknown, or torch refuses its settings.
        TypeError: OPTIM.STAGED_LR is on and `model` is not a module.
    """
    name, staged_lr = optim_cfg.NAME, optim_cfg.STAGED_LR
    if name not in AVAI_OPTIMS:
        raise ConfigError(not_one_of("OPTIM.NAME", name, AVAI_OPTIMS))
    if param_groups is not None:
        if staged_lr:
            logger.warning("OPTIM.STAGED_LR is ignored: the parameter groups are given")
    elif staged_lr:
        param_groups = _staged_groups(model, optim_cfg)
    elif isinstance(model, nn.Module):
        param_groups = model.parameters()
    else:
        param_groups = model
    try:
        return _build(name, param_groups, optim_cfg)
    except ValueError as error:  # Nesterov without momentum, a beta of 1, no parameters
        raise ConfigError(f"OPTIM does not suit the optimizer {name!r}: {error}") from None


def _build(name: str, params: Iterable[Any], optim_cfg: CfgNode) -> torch.optim.Optimizer:
    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    adam = {"betas": (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2), **common}
    if "ADAM_EPS" in optim_cfg:  # no key of ours: other people's settings may add it
        adam["eps"] = optim_cfg.ADAM_EPS
    if name == "sgd":
        return torch.optim.SGD(
            params,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(
            params, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common
        )
    if name == "adamw":
        return torch.optim.AdamW(params, **adam)
    if name == "radam":
        return RAdam(params, **adam)
    # "amsgrad" is Adam with the running maximum of arXiv 1904.09237.
    return torch.optim.Adam(params, amsgrad=name == "amsgrad", **adam)


def _staged_groups(model: nn.Module | Iterable[Any], optim_cfg: CfgNode) -> list[dict[str, Any]]:
    """Two groups: first the base layers with LR * BASE_LR_MULT, then NEW_LAYERS with LR.

    A layer is a direct child of `model`. Parameters that belong to `model` itself count as base.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            "OPTIM.STAGED_LR sorts parameters by layer name, so it needs a torch.nn.Module; got "
            f"{type(model).__name__}. Pass the module, or groups with their own 'lr'."
        )
    if isinstance(model, nn.DataParallel):
        model = model.module
    new_layers = optim_cfg.NEW_LAYERS
    new_layers = (new_layers,) if isinstance(new_layers, str) else tuple(new_layers)
    children = [name for name, _ in model.named_children()]
    unknown = [name for name in new_layers if name not in children]
    if unknown or not new_layers:
        # Only a warning: one OPTIM node may serve several models, of which one has the layer.
        logger.warning(
            "OPTIM.NEW_LAYERS is %r, of which %s has %s; its layers are: %s",
            new_layers,
            type(model).__name__,
            "none" if len(unknown) == len(new_layers) else f"no {', '.join(unknown)}",
            ", ".join(children),
        )
    base: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (new if name.split(".")[0] in new_layers else base).append(parameter)
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]
