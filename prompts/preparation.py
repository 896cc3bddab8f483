"""What a file for other programs says of CLIP and of pictures, in plain data.

No place of the machine that wrote the file is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from encoders.open_clip import LOCAL, PREFIX
from prompts.predictor import Predictor

FOLDER = PREFIX + LOCAL


def portable_name(name: str) -> str:
    """Returns MODEL.BACKBONE.NAME; of a folder, its last part."""
    return FOLDER + Path(name.removeprefix(FOLDER)).name if name.startswith(FOLDER) else name


def weights_of(predictor: Predictor) -> dict[str, str]:
    """Returns name and digest of CLIP's weights, as far as they are known."""
    backbone = predictor.run.cfg.MODEL.BACKBONE
    name, file = portable_name(backbone.NAME), Path(backbone.PATH).name
    if file:
        name = f"{name} ({file})" if name.startswith(PREFIX) else file
    known = predictor.trainer.weights_used() or {}
    return known and {**known, "name": f"CLIP {name}"}


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
