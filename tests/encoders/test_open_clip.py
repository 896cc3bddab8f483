"""Towers of open_clip under OpenAI's names, against open_clip's own forward passes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import encoders
from encoders import ImageEncoder, TextEncoder, open_clip
from encoders.adapted import OtherTower
from encoders.kernels.second_order import twice_differentiable
from encoders.open_clip import Source
from encoders.prompt_tree import PromptTree, learned_token
from encoders.tokens import OPENAI, tokenize, tokenizer_of
from tests.golden_recipes import assert_close
from tests.open_clip_models import (
    FAMILIES,
    PLAIN,
    SLOW,
    adapted,
    build,
    model_folder,
    needs_open_clip,
    pictures,
    small_config,
)

pytestmark = needs_open_clip

TEXTS = ["a photo of a cat.", "a photo of a snow leopard.", "", "it's \u00e9t\u00e9"]
EXACT = 1e-5  # of the largest value


def rows(model, clip_model) -> Tensor:
    return tokenize(TEXTS, model.context_length, by=tokenizer_of(clip_model))


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=[pytest.mark.slow] if f in SLOW else []) for f in FAMILIES]
)
def test_both_towers_are_exact(family):
    model, clip_model = adapted(family)
    tokens, images = rows(model, clip_model), pictures(clip_model)
    with torch.no_grad():
        texts, seen = model.encode_text(tokens), model.encode_image(images)
        plain_texts, plain_seen = clip_model.encode_text(tokens), clip_model.encode_image(images)
    assert_close(TextEncoder(clip_model).encode_tokens(tokens), texts, EXACT)
    assert_close(ImageEncoder(clip_model.visual)(images), seen, EXACT)
    assert_close(plain_texts, texts, EXACT)  # what other people's files call
    assert_close(plain_seen, seen, EXACT)
    assert clip_model.logit_scale.exp() == model.logit_scale.exp()

    timm = "timm_model_name" in FAMILIES[family]
    assert isinstance(clip_model.visual, OtherTower) == timm, "the others are folded"
    assert clip_model.visual.output_dim == 24


@pytest.mark.parametrize("backend", ["torch", None])
@pytest.mark.parametrize("family", ["ViT-B-32", "ViT-B-32-quickgelu", "ViT-g-14"])
def test_gradients_of_context_vectors_are_exact(family, backend):
    model, clip_model = adapted(family)
    text = getattr(model, "text", model)
    tokens = rows(model, clip_model)[:2]
    ends = tokens.argmax(dim=-1)
    width, n = text.positional_embedding.shape[1], 3
    context = 0.02 * torch.randn(n, width, generator=torch.Generator().manual_seed(5))
    weights = torch.randn(2, 24, generator=torch.Generator().manual_seed(6))

    theirs = context.clone().requires_grad_()
    x = text.token_embedding(tokens)
    x = torch.cat([x[:, :1], theirs.expand(2, -1, -1), x[:, 1 + n :]], dim=1)
    x = text.transformer(x + text.positional_embedding, attn_mask=text.attn_mask)
    want = text.ln_final(x)[torch.arange(2), ends] @ text.text_projection
    (want * weights).sum().backward()

    ours = context.clone().requires_grad_()
    learned = [learned_token(i) for i in range(n)]
    ids = [row[: end + 1] for row, end in zip(tokens.tolist(), ends.tolist())]
    tree = PromptTree([[row[0], *learned, *row[1 + n :]] for row in ids])
    got = TextEncoder(clip_model, backend=backend)(ours[None], tree)[0]
    (got * weights).sum().backward()
    assert_close(got, want, EXACT)
    assert_close(ours.grad, theirs.grad, EXACT)


@pytest.mark.parametrize("family", PLAIN)
def test_gradients_of_visual_prompts_are_exact(family):
    model, clip_model = adapted(family)
    visual, images = model.visual, pictures(clip_model)
    prompts = 0.02 * torch.randn(2, visual.conv1.out_channels)

    theirs = prompts.clone().requires_grad_()
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + visual.positional_embedding
    x = visual.ln_pre(torch.cat([x, theirs.expand(len(x), -1, -1)], dim=1))
    want = visual.ln_post(visual.transformer(x)[:, 0]) @ visual.proj
    want.square().sum().backward()

    ours = prompts.clone().requires_grad_()
    got = ImageEncoder(clip_model.visual)(images, ours)
    got.square().sum().backward()
    assert_close(got, want, EXACT)
    assert_close(ours.grad, theirs.grad, EXACT)

    with twice_differentiable():
        again = prompts.clone().requires_grad_()
        got = ImageEncoder(clip_model.visual)(images, again)
        (grad,) = torch.autograd.grad(got.square().sum(), again, create_graph=True)
    assert_close(got, want, EXACT)
    assert_close(grad, theirs.grad, EXACT)
    assert grad.requires_grad


def test_no_gradient_reaches_a_tower_that_runs_as_it_is():
    clip_model = copy.deepcopy(adapted("convnext_base_w")[1])
    for parameter in clip_model.parameters():
        parameter.requires_grad_(True)
    assert not ImageEncoder(clip_model.visual)(pictures(clip_model)).requires_grad


@pytest.mark.parametrize("n", [1, 16, 17])
def test_a_tower_that_runs_as_it_is_takes_any_number_of_images(n):
    model, clip_model = adapted("convnext_base_w")
    images = pictures(clip_model, n)
    with torch.no_grad():
        want = model.encode_image(images)
    assert_close(ImageEncoder(clip_model.visual)(images), want, EXACT)


@pytest.mark.parametrize(
    "odd",
    [
        {"pool_type": "avg"},
        {"no_ln_pre": True},
        {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4},
        {"ls_init_value": 0.5},
        {"act_kwargs": {"approximate": "tanh"}},
        {"block_type": "custom", "qk_norm": True},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_vision_transformers_of_other_kinds_run_as_they_are(odd):
    config = small_config("ViT-B-32")
    config["vision_cfg"].update(odd)
    tokenizer = open_clip.tokenizer_for(Source("ViT-B-32"))
    clip_model = open_clip.adapt(build(config), config, tokenizer)
    assert isinstance(clip_model.visual, OtherTower)
    images = pictures(clip_model)
    with torch.no_grad():
        want = build(config).encode_image(images)
    assert_close(ImageEncoder(clip_model.visual)(images), want, EXACT)


def test_what_only_looks_plain_is_folded_exactly():
    """Norms of another epsilon, positions that were not learned, a norm behind the pooling."""
    config = small_config("ViT-B-32")
    config["vision_cfg"] |= {
        "norm_kwargs": {"eps": 1e-3},
        "pos_embed_type": "sin_cos_2d",
        "final_ln_after_pool": True,
    }
    config["text_cfg"]["norm_kwargs"] = {"eps": 1e-3}
    tokenizer = open_clip.tokenizer_for(Source("ViT-B-32"))
    model, clip_model = build(config), open_clip.adapt(build(config), config, tokenizer)
    assert not isinstance(clip_model.visual, OtherTower)
    images, tokens = pictures(clip_model), rows(model, clip_model)
    with torch.no_grad():
        want = model.encode_image(images), model.encode_text(tokens)
    assert_close(ImageEncoder(clip_model.visual)(images), want[0], EXACT)
    assert_close(TextEncoder(clip_model).encode_tokens(tokens), want[1], EXACT)


def test_texts_are_read_as_open_clip_reads_them():
    package = open_clip.package()
    for name in ("ViT-B-32", "PE-Core-B-16"):
        theirs = package.get_tokenizer(name)
        ours = open_clip.tokenizer_for(Source(name))
        length = package.get_model_config(name)["text_cfg"]["context_length"]
        assert tokenize(TEXTS, length, by=ours).equal(theirs(TEXTS))
        assert tokenize(TEXTS, length).equal(theirs(TEXTS)), "OpenAI's vocabulary"
        assert [ours.encode(text) for text in TEXTS] == [OPENAI.encode(text) for text in TEXTS]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_a_folder_s_weights_are_loaded(tmp_path, precision, kind):
    timm = {"image_size": 32, "timm_model_name": "convnext_atto", "timm_pool": ""}
    more = {} if kind == "vit" else {"vision": timm, "custom_text": True}
    name = model_folder(tmp_path / kind, **more)
    state = torch.get_rng_state()
    towers = encoders.load(name, precision)
    assert torch.equal(torch.get_rng_state(), state), "loading draws nothing"
    assert (towers.image_size, towers.context_length, towers.embed_dim) == (32, 77, 32)
    images, tokens = torch.randn(2, 3, 32, 32), towers.tokenizer(TEXTS)
    model = build(open_clip.model_config(Source.parse(name)))
    off = EXACT if precision == "fp32" else 5e-3
    with torch.no_grad():
        assert_close(towers.image(images).float(), model.encode_image(images), off)
        assert_close(towers.text.encode_tokens(tokens).float(), model.encode_text(tokens), off)
    assert not any(parameter.requires_grad for parameter in towers.model.parameters())


def test_models_can_be_copied(tmp_path):
    towers = encoders.load(model_folder(tmp_path))
    tokens = towers.tokenizer(TEXTS)
    twin = TextEncoder(copy.deepcopy(towers.model))
    assert torch.equal(twin.encode_tokens(tokens), towers.text.encode_tokens(tokens))
