"""Weights that only look like OpenAI's: recognized by their sizes, refused, or stated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dassl.utils import ConfigError
from encoders.families import OPENAI, check_family, family_of
from encoders.load import load_model
from tests.golden_recipes import make_cfg, model_state_dict
from trainers.clip_trainer import load_clip, load_clip_to_cpu

FILE = Path("weights.pt")
STATED = {"activation": "quick_gelu", "head_width": 64}


def sizes(vision: tuple[int, ...], text: int, pool: int = 2048) -> dict[str, Tensor]:
    """A state dict of these sizes, as far as sizes are looked at; it takes no memory."""
    state = {"ln_final.weight": torch.empty(text, device="meta")}
    if len(vision) == 3:
        width, layers, patch = vision
        state["visual.proj"] = torch.empty(width, 512, device="meta")
        state["visual.conv1.weight"] = torch.empty(width, 3, patch, patch, device="meta")
        blocks = range(layers)
        return state | {f"visual.transformer.resblocks.{i}.ln_1.weight": None for i in blocks}
    width, *stages = vision
    state["visual.conv1.weight"] = torch.empty(width // 2, 3, 3, 3, device="meta")
    state["visual.layer1.0.conv1.weight"] = torch.empty(width, width, 1, 1, device="meta")
    state["visual.attnpool.q_proj.weight"] = torch.empty(pool, pool, device="meta")
    for stage, blocks in enumerate(stages, 1):
        for block in range(blocks):
            state.setdefault(f"visual.layer{stage}.{block}.conv1.weight", None)
    return state


@pytest.mark.parametrize("family", OPENAI, ids=OPENAI.values())
def test_the_published_sizes_are_known(family):
    vision, text = family
    state = sizes(vision, text)
    assert family_of(state) == OPENAI[family]
    check_family(state, FILE)


@pytest.mark.parametrize(
    ("vision", "text", "whose"),
    [
        ((1280, 32, 14), 1024, "ViT-H/14, with heads of 80"),
        ((1408, 40, 14), 1024, "ViT-g/14, with heads of 88"),
        ((1664, 48, 14), 1280, "ViT-bigG/14, with heads of 104"),
        ((896, 12, 16), 640, "ViT-B/16-plus, with heads of 56"),
        ((384, 12, 16), 384, "no CLIP of OpenAI's"),
        ((768, 12, 16), 768, "no CLIP of OpenAI's"),  # another text tower
        ((768, 12, 14), 512, "no CLIP of OpenAI's"),
        ((768, 11, 16), 512, "no CLIP of OpenAI's"),
        ((64, 3, 4, 6, 4), 512, "no CLIP of OpenAI's"),
    ],
)
def test_other_sizes_must_be_stated(vision, text, whose):
    state = sizes(vision, text)
    assert not family_of(state)
    for said in ({}, {"activation": "quick_gelu"}, {"head_width": 64}):
        with pytest.raises(ConfigError, match=whose) as error:
            check_family(state, FILE, **said)
        told = "MODEL.BACKBONE.HEAD_WIDTH 64 MODEL.BACKBONE.ACTIVATION quick_gelu"
        assert told in str(error.value)
    check_family(state, FILE, **STATED)


@pytest.mark.parametrize(("width", "text"), [(96, 64), (64, 80), (100, 64)])
def test_widths_that_heads_cannot_share_are_refused(width, text):
    with pytest.raises(ConfigError, match="which heads of 64"):
        check_family(sizes((width, 2, 8), text), FILE, **STATED)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.BACKBONE.ACTIVATION", "gelu"),
        ("MODEL.BACKBONE.ACTIVATION", "relu"),
        ("MODEL.BACKBONE.HEAD_WIDTH", 80),
    ],
)
def test_what_cannot_be_run_is_refused(key, value):
    for load in (load_clip_to_cpu, lambda cfg: load_clip(cfg, "fp32")):
        with pytest.raises(ConfigError, match=f"{key} is .*{value}"):
            load(make_cfg("vit_a", {key: value}))


def test_a_file_of_other_sizes(tmp_path):
    weights = dict(model_state_dict("vit_a"))
    path = tmp_path / "clip.pt"
    torch.save(weights, path)
    load_model(path, "fp32")  # so small that nobody publishes it
    load_model(path, "fp32", "quick_gelu", 64)
