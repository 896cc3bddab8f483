"""Shared by the transform tests: golden images, the INPUT configuration, expected arrays."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from yacs.config import CfgNode

GOLDEN = Path(__file__).parent / "golden"
PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13


def load_golden() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays of transforms.npz and its description."""
    with np.load(GOLDEN / "transforms.npz") as npz:
        arrays = {name: npz[name] for name in npz.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def image(height: int, width: int, k: int) -> Image.Image:
    """The deterministic RGB image of the golden README ("PIL images")."""
    y, x, c = np.meshgrid(range(height), range(width), range(3), indexing="ij")
    values = (3 + k + c) * x + (5 + 2 * c) * y + ((c + 1) * x * y) // (7 + k)
    return Image.fromarray((values % 256).astype(np.uint8))


def input_cfg(**changes: Any) -> CfgNode:
    """A configuration with the INPUT keys, at the defaults of a CLIP run; keywords change them."""
    node = CfgNode(
        {
            "SIZE": (32, 32),
            "INTERPOLATION": "bicubic",
            "TRANSFORMS": ("random_resized_crop", "random_flip", "normalize"),
            "NO_TRANSFORM": False,
            "PIXEL_MEAN": [0.48145466, 0.4578275, 0.40821073],
            "PIXEL_STD": [0.26862954, 0.26130258, 0.27577711],
            "CROP_PADDING": 4,
            "RRCROP_SCALE": (0.08, 1.0),
            "CUTOUT_N": 1,
            "CUTOUT_LEN": 16,
            "GN_MEAN": 0.0,
            "GN_STD": 0.15,
            "RANDAUGMENT_N": 2,
            "RANDAUGMENT_M": 10,
            "COLORJITTER_B": 0.4,
            "COLORJITTER_C": 0.4,
            "COLORJITTER_S": 0.4,
            "COLORJITTER_H": 0.1,
            "RGS_P": 0.2,
            "GB_P": 0.5,
            "GB_K": 21,
        }
    )
    for key, value in changes.items():
        node[key] = value
    return CfgNode({"INPUT": node})


def seed_all(seed: int) -> None:
    """Seeds Python, NumPy and PyTorch, as the golden runs did."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def next_numbers() -> dict[str, float]:
    """Draws once from each generator: equal numbers mean equal consumption before."""
    return {
        "next_python_random": random.random(),
        "next_numpy_random": float(np.random.rand()),
        "next_torch_rand": float(torch.rand(1)),
    }


def for_installed_pillow(name: str, meta: dict[str, Any]) -> str:
    """The entry that fits: Pillow 13 resizes some shapes in the other pass order."""
    return f"pillow13/{name}" if PILLOW_13 and name in meta["pillow13"]["entries"] else name
