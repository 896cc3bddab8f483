"""Which device a run computes on: decided here, and nowhere else."""

from __future__ import annotations

import torch
from yacs.config import CfgNode


def device_of(cfg: CfgNode) -> torch.device:
    """Returns the GPU if USE_CUDA allows it and there is one, else the CPU.

    With USE_CUDA False nothing is asked of CUDA: a question alone can load the driver.
    """
    return torch.device("cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu")
