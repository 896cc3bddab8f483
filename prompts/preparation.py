"""How a run's pictures become tensors, in plain data, for programs that are not ours."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode


def preparation(cfg: CfgNode) -> dict[str, Any]:
    """Returns what a run does to a picture: `dassl.data.transforms`' test transform."""
    node = cfg.INPUT
    height, width = node.SIZE
    found = {
        "colours": "RGB",
        "resize_shorter_side": max(height, width),
        "interpolation": node.INTERPOLATION,
        "center_crop": [height, width],
        "range": [0.0, 1.0],
    }
    if "normalize" in node.TRANSFORMS:
        found |= {"mean": list(node.PIXEL_MEAN), "std": list(node.PIXEL_STD)}
    if "instance_norm" in node.TRANSFORMS:
        found["instance_norm"] = True
    return found
