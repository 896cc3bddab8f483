"""Small models of open_clip's families with random weights, built by its own classes."""

from __future__ import annotations

import copy
import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from encoders import open_clip
from encoders.open_clip import CONFIG, INSTALL, WEIGHTS, Source

needs_open_clip = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason=f"open_clip is not there: {INSTALL}"
)

# A name of each family, and a small image tower of the same kind; its sizes where it has heads of
# its own. Text towers keep their context length, heads' width and activation.
FAMILIES: dict[str, dict[str, Any]] = {
    "ViT-B-32": {},  # LAION, DataComp
    "ViT-B-32-quickgelu": {},  # OpenAI, DFN, MetaCLIP
    "ViT-B-16-plus-240": {},
    "ViT-H-14": {},  # heads of 80
    "ViT-g-14": {},  # heads of 88, an MLP of 4.4 widths
    "ViT-bigG-14": {},  # heads of 104, an MLP of 4.9 widths
    "RN50": {"layers": [1, 1, 2, 1], "width": 16, "image_size": 64},
    "RN50x4-quickgelu": {"layers": [1, 2, 1, 1], "width": 20, "image_size": 64},
    "convnext_base_w": {"timm_model_name": "convnext_atto", "image_size": 64},
    "convnext_large_d": {"timm_model_name": "convnext_atto", "image_size": 64},
    "EVA02-B-16": {"timm_model_name": "eva02_tiny_patch14_224"},
    "ViTamin-B": {"timm_model_name": "vitamin_small_224"},
    "PE-Core-B-16": {"timm_model_name": "vit_pe_core_tiny_patch16_384", "image_size": 384},
    "MobileCLIP-B": {"timm_model_name": "vit_tiny_patch16_224"},
}
SLOW = ("EVA02-B-16", "ViTamin-B", "PE-Core-B-16", "MobileCLIP-B")  # images of 224 pixels and more
PLAIN = ("ViT-B-32", "ViT-B-32-quickgelu", "ViT-bigG-14")


def small_config(name: str) -> dict[str, Any]:
    """Returns open_clip's description of a family's towers, with few and narrow layers."""
    config = open_clip.model_config(Source(name))
    text, vision = config["text_cfg"], config["vision_cfg"]
    width = text["width"] // text["heads"]
    text.update(width=2 * width, heads=2, layers=3)
    if FAMILIES[name]:
        vision.update(FAMILIES[name])
    else:
        patch = vision["patch_size"]
        width = vision.get("head_width", 64)
        vision.update(width=2 * width, layers=3, image_size=3 * patch)
    return config | {"embed_dim": 24}


def build(config: dict[str, Any], seed: int = 0) -> Any:
    """Builds open_clip's model with weights as after training: no norm is the identity."""
    torch.manual_seed(seed)
    model = open_clip.build(config)
    norms = (nn.LayerNorm, nn.BatchNorm2d)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, norms) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@lru_cache
def adapted(name: str) -> tuple[Any, Any]:
    """Returns a small model of a family as open_clip has it, and its twin under OpenAI's names.

    Nobody may change them: they are made once.
    """
    config = small_config(name)
    model = build(config)
    twin = open_clip.adapt(copy.deepcopy(model), config, open_clip.tokenizer_for(Source(name)))
    return model, twin


def pictures(clip_model: Any, n: int = 3) -> torch.Tensor:
    size = clip_model.visual.input_resolution
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n))


VIT = {"image_size": 32, "layers": 3, "width": 96, "head_width": 32, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}
CONVNEXT = {"image_size": 32, "timm_model_name": "convnext_atto", "timm_pool": ""}


def model_folder(folder: Path, vision: dict = VIT, text: dict = TEXT, **more: Any) -> str:
    """Writes a model's folder as open_clip does; returns the backbone's name.

    Args:
        folder: where.
        vision, text: open_clip's descriptions of the towers.
        more: "preprocess", or settings of the whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = more.pop("preprocess", {})
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text, **more}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / CONFIG).write_text(json.dumps(content), encoding="utf-8")
    torch.save(build(config).state_dict(), folder / WEIGHTS[1])
    return f"open_clip:local-dir:{folder}"
