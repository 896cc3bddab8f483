"""`encoders.load`: towers without a trainer, against OpenAI's own forward passes."""

from __future__ import annotations

import pytest
import torch

import encoders
from dassl.utils import ConfigError, UnknownNameError
from encoders.openai import CLIP
from tests.golden_recipes import assert_close, golden_clip, image_size, images, weights_file

TEXTS = ["a photo of a cat.", "a photo of a snow leopard.", "0"]


@pytest.mark.parametrize("name", ["vit_a", "vit_b", "rn_a"])
def test_both_towers_agree_with_the_clip_package(name: str):
    towers = encoders.load(weights_file(name))
    model = golden_clip(name)
    size = image_size(name)
    assert towers.image_size == size
    assert towers.context_length == 77
    assert towers.embed_dim == model.text_projection.shape[1]
    tokens = towers.tokenizer(TEXTS)
    batch = images(7, size, 3)
    with torch.no_grad():
        assert_close(towers.image(batch), model.encode_image(batch), 2e-5, "image")
        assert_close(towers.text.encode_tokens(tokens), model.encode_text(tokens), 2e-5, "text")
        expected = model(batch, tokens)[0]
        image, text = towers.image(batch), towers.text.encode_tokens(tokens)
        cosine = encoders.normalize(image) @ encoders.normalize(text).t()
        assert_close(towers.logit_scale * cosine, expected, 1e-4, "logits")


def test_a_file_may_be_given_as_text_and_in_half_precision():
    towers = encoders.load(str(weights_file("vit_a")), precision="fp16")
    assert isinstance(towers.model, CLIP)
    assert towers.model.visual.proj.dtype == torch.float16
    assert not any(p.requires_grad for p in towers.model.parameters())


def test_the_embedded_clip_by_name():
    towers = encoders.load("tiny")
    assert towers.image(torch.zeros(1, 3, 32, 32)).shape == (1, towers.embed_dim)


def test_what_is_wrong_is_said():
    with pytest.raises(UnknownNameError, match="the backbone is 'ViT-B/61'; expected one of RN50"):
        encoders.load("ViT-B/61")
    with pytest.raises(ConfigError, match="the precision is 'bf16'; expected one of fp16"):
        encoders.load("tiny", precision="bf16")
    with pytest.raises(ConfigError, match="82 tokens, but CLIP reads 77"):
        encoders.load("tiny").tokenizer(["a " * 80])
