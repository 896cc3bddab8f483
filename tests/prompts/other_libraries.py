"""The embedded CLIP in the classes of other libraries, for what they make of our class weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from encoders.openai import build_model
from encoders.tiny import load_tiny_state_dict

HEAD_WIDTH = 64


def in_openai() -> Any:
    """OpenAI's own package, float32."""
    weights = load_tiny_state_dict()
    model = build_model(dict(weights)).float()
    model.load_state_dict(weights)
    return model.eval()


def in_open_clip() -> Any:
    import open_clip

    weights = load_tiny_state_dict()
    model = open_clip.model.build_model_from_openai_state_dict(
        dict(weights), cast_dtype=torch.float32
    ).float()
    model.load_state_dict(weights, strict=False)
    return model.eval()


def in_transformers() -> Any:
    from transformers import CLIPConfig, CLIPModel

    weights = load_tiny_state_dict()
    visual, text = "visual.transformer.resblocks.", "transformer.resblocks."
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    positions = weights["visual.positional_embedding"].shape[0] - 1
    shared = {"hidden_act": "quick_gelu"}
    vocabulary, text_width = weights["token_embedding.weight"].shape
    config = CLIPConfig(
        projection_dim=weights["text_projection"].shape[1],
        vision_config={
            **_sizes(weights, visual, width),
            **shared,
            "image_size": round(positions**0.5) * patch,
            "patch_size": patch,
        },
        text_config={
            **_sizes(weights, text, text_width),
            **shared,
            "vocab_size": vocabulary,
            "max_position_embeddings": weights["positional_embedding"].shape[0],
            "eos_token_id": vocabulary - 1,
        },
    )
    model = CLIPModel(config)
    renamed = {**_tower(weights, visual, "vision_model"), **_tower(weights, text, "text_model")}
    renamed |= {new: weights[old] for new, old in _SINGLE.items()}
    renamed["visual_projection.weight"] = weights["visual.proj"].T
    renamed["text_projection.weight"] = weights["text_projection"].T
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    return model.eval()


def _sizes(weights: dict[str, Tensor], blocks: str, width: int) -> dict[str, int]:
    layers = {key[len(blocks) :].split(".")[0] for key in weights if key.startswith(blocks)}
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // HEAD_WIDTH,
    }


_SINGLE = {
    "logit_scale": "logit_scale",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _tower(weights: dict[str, Tensor], blocks: str, name: str) -> dict[str, Tensor]:
    found = {}
    for key, value in weights.items():
        if not key.startswith(blocks):
            continue
        number, _, rest = key[len(blocks) :].partition(".")
        place = f"{name}.encoder.layers.{number}"
        part, _, leaf = rest.rpartition(".")
        if part in _IN_BLOCK:
            found[f"{place}.{_IN_BLOCK[part]}.{leaf}"] = value
        else:  # attn.in_proj_weight, attn.in_proj_bias
            leaf = leaf.removeprefix("in_proj_")
            for letter, piece in zip("qkv", value.chunk(3)):
                found[f"{place}.self_attn.{letter}_proj.{leaf}"] = piece
    return found
