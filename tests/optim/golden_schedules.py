"""What the tests of the schedules share: the golden cases and how an epoch goes."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from dassl.optim import build_lr_scheduler, build_optimizer

GOLDEN_DIR = Path(__file__).parents[1] / "parity" / "golden"
GOLDEN = json.loads((GOLDEN_DIR / "lr_schedule.json").read_text(encoding="utf-8"))
CASES = GOLDEN["cases"]

DEFAULTS = {  # the OPTIM node where a case says nothing; `adam_defaults_ep10` pins these
    "NAME": "adam",
    "LR": 0.0003,
    "WEIGHT_DECAY": 5e-4,
    "MOMENTUM": 0.9,
    "SGD_DAMPNING": 0,
    "SGD_NESTEROV": False,
    "RMSPROP_ALPHA": 0.99,
    "ADAM_BETA1": 0.9,
    "ADAM_BETA2": 0.999,
    "STAGED_LR": False,
    "NEW_LAYERS": (),
    "BASE_LR_MULT": 0.1,
    "LR_SCHEDULER": "single_step",
    "STEPSIZE": (-1,),
    "GAMMA": 0.1,
    "MAX_EPOCH": 10,
    "WARMUP_EPOCH": -1,
    "WARMUP_TYPE": "linear",
    "WARMUP_CONS_LR": 1e-5,
    "WARMUP_MIN_LR": 1e-5,
    "WARMUP_RECOUNT": True,
}


def optim_node(**settings: Any) -> CfgNode:
    return CfgNode({**DEFAULTS, **settings})


def case_node(name: str, **settings: Any) -> CfgNode:
    case = CASES[name]
    return optim_node(**{**case["optim_cfg"], "MAX_EPOCH": case["max_epoch"], **settings})


def tiny_model() -> nn.Module:
    return nn.Sequential(OrderedDict(backbone=nn.Linear(2, 2), head=nn.Linear(2, 1)))


def build(cfg: CfgNode) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = build_optimizer(tiny_model(), cfg)
    return optimizer, build_lr_scheduler(optimizer, cfg)


def rates(optimizer: torch.optim.Optimizer) -> float | list[float]:
    """The rate, or one per group, as the golden file writes it."""
    values = [group["lr"] for group in optimizer.param_groups]
    return values if len(values) > 1 else values[0]


def train_epoch(optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    """One batch, then the update at the end of the epoch."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler.step()
