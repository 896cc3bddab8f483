"""Deep prompts in both towers against CLIP's own blocks: float64 1e-12, float32 2e-5."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dassl.utils import ConfigError
from encoders import text
from encoders.image import ImageEncoder
from encoders.kernels import tree_attention
from encoders.prompt_tree import ForkedTree, PromptTree, learned_token
from encoders.text import TextEncoder
from tests.fast_paths.test_image_encoder import visual_in
from tests.fast_paths.test_text_encoder import clip_in, weighted_sum
from tests.golden_recipes import assert_close, golden_clip, image_size, images

FEATURES = {torch.float64: 1e-12, torch.float32: 2e-5}
GRADIENTS = {torch.float64: 1e-12, torch.float32: 1e-4}
DTYPES = pytest.mark.parametrize("dtype", FEATURES, ids=str)
START, END, STOP = 49406, 49407, 269


def vectors(seed: int, *shape: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.1 * torch.randn(shape, generator=generator, dtype=dtype)).requires_grad_()


def blocks_with(blocks: Any, x: Tensor, places: Tensor, deep: Any) -> Tensor:
    """(L, N, D) through CLIP's own blocks; from the second on, `deep` stands at places (N, V).

    Where it is None, what the block before made of them stays.
    """
    for i, block in enumerate(blocks):
        if deep is not None and 1 <= i <= len(deep) and deep[i - 1] is not None:
            x = x.clone()
            for n, place in enumerate(places):
                x[place, n] = deep[i - 1]
        x = block(x)
    return x


# --- text -----------------------------------------------------------------------------------------


def sequences(position: str, n_ctx: int, names: list[list[int]], per_class: bool):
    """Prompts with the context behind, around or in front of the name, as `PromptTree` takes it."""
    for c, name in enumerate(names):
        context = [learned_token(m + c * n_ctx * per_class) for m in range(n_ctx)]
        half = n_ctx // 2
        words = {
            "end": [*context, *name],
            "middle": [*context[:half], *name, *context[half:]],
            "front": [*name, *context],
        }[position]
        yield [START, *words, STOP, END]


def plain_text(clip_model: Any, context: Tensor, prompts: list[list[int]], deep: Any) -> Tensor:
    """Each prompt alone, through all 77 positions: contexts (V, D) → features (C, E)."""
    rows = []
    for prompt in prompts:
        places = torch.tensor([[i for i, token in enumerate(prompt) if token < 0]])
        numbers = [-1 - token for token in prompt if token < 0]
        tokens = torch.tensor([max(token, 0) for token in prompt] + [0] * (77 - len(prompt)))
        x = clip_model.token_embedding(tokens)  # (77, D)
        x = x.index_copy(0, places[0], context[numbers])
        x = (x + clip_model.positional_embedding)[:, None]  # (77, 1, D)
        own = None if deep is None else [d if d is None else d[numbers] for d in deep]
        x = blocks_with(clip_model.transformer.resblocks, x, places, own)
        rows.append(clip_model.ln_final(x[len(prompt) - 1]) @ clip_model.text_projection)
    return torch.cat(rows)


NAMES = [[320], [1000, 1001, 1002], [1000, 1001], [5, 6, 7, 8, 9, 10], [320]]  # one of them twice


@DTYPES
@pytest.mark.parametrize("chunk", [0, 1, 12])
@pytest.mark.parametrize("per_class", [False, True], ids=["unified", "class-specific"])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_text(dtype, position, per_class, chunk):
    """All depths; several groups of context vectors; chunks that the backward pass recomputes."""
    clip_model, width = clip_in(dtype), 64
    blocks = len(clip_model.transformer.resblocks)
    for depth, n_ctx, groups in [(1, 3, 1), (2, 4, 1), (blocks, 3, 2), (blocks, 1, 1)]:
        names = NAMES[: 5 - depth % 2]
        prompts = list(sequences(position, n_ctx, names, per_class))
        n_vectors = n_ctx * (len(names) if per_class else 1)
        context = vectors(1, groups, n_vectors, width, dtype=dtype)
        deep = vectors(2, depth - 1, n_vectors, width, dtype=dtype)
        expected = torch.stack([plain_text(clip_model, c, prompts, deep) for c in context])
        features = TextEncoder(clip_model, chunk)(context, PromptTree(prompts), deep)
        assert_close(features, expected, FEATURES[dtype], "features")
        learned = (context, deep) if depth > 1 else (context,)
        gradients = torch.autograd.grad(weighted_sum(features), learned)
        for own, plain in zip(gradients, torch.autograd.grad(weighted_sum(expected), learned)):
            assert_close(own, plain, GRADIENTS[dtype], "gradient")


def test_deep_text_prompts_alone_can_learn():
    """With a context that stays as it is (a recipe may fix the words of the first block)."""
    clip_model = clip_in(torch.float32)
    prompts = list(sequences("end", 2, NAMES, per_class=False))
    context = vectors(1, 1, 2, 64, dtype=torch.float32).detach()
    deep = vectors(2, 1, 2, 64, dtype=torch.float32)
    for chunk in (0, 5):
        features = TextEncoder(clip_model, chunk)(context, PromptTree(prompts), deep)
        (gradient,) = torch.autograd.grad(weighted_sum(features), deep)
        expected = plain_text(clip_model, context[0], prompts, deep)
        (plain,) = torch.autograd.grad(weighted_sum(expected), deep)
        assert_close(gradient, plain, 1e-4)


@functools.cache
def deeper_clip(dtype: torch.dtype) -> Any:
    """The golden model with four blocks in its text tower, two of them twice."""
    clip_model = copy.deepcopy(clip_in(dtype))
    first, second = clip_model.transformer.resblocks
    blocks = [first, second, copy.deepcopy(second), copy.deepcopy(first)]
    clip_model.transformer.resblocks = nn.Sequential(*blocks)
    return clip_model


def plain_forked(
    clip_model: Any, context: Tensor, prompts: list[list[int]], own: Tensor, deep: list[Tensor]
) -> Tensor:
    """Each prompt with its own vectors, (C, V, D), behind the blocks that `deep` speaks of."""
    pairs = zip(prompts, own)
    return torch.cat([plain_text(clip_model, context, [p], [*deep, v]) for p, v in pairs])


@DTYPES
@pytest.mark.parametrize("chunk", [0, 1, 12, 25])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_vectors_of_each_class_s_own(dtype, position, chunk):
    """They enter behind any block, alone or behind deep ones; two classes have one name."""
    clip_model, width = deeper_clip(dtype), 64
    sizes = [(5, 3, 1), (1, 2, 1), (4, 4, 2)]  # C, V, G
    blocks = [(1, 0), (3, 2), (2, 0)]  # behind which; how many have deep vectors before
    for (n_cls, n_ctx, groups), (depth, shared) in zip(sizes, blocks):
        prompts = list(sequences(position, n_ctx, NAMES[-n_cls:], per_class=False))
        context = vectors(1, groups, n_ctx, width, dtype=dtype)
        own = vectors(2, n_cls * n_ctx, width, dtype=dtype)
        deep = vectors(3, shared, n_ctx, width, dtype=dtype)
        entering = [*deep, *[None] * (depth - 1 - shared)]
        expected = torch.stack(
            [
                plain_forked(clip_model, c, prompts, own.view(n_cls, n_ctx, -1), entering)
                for c in context
            ]
        )
        tree = ForkedTree(prompts, n_ctx, depth)
        features = TextEncoder(clip_model, chunk)(context, tree, deep if shared else None, own)
        assert_close(features, expected, FEATURES[dtype], "features")
        learned = (context, own, deep) if shared else (context, own)
        gradients = torch.autograd.grad(weighted_sum(features), learned)
        for mine, plain in zip(gradients, torch.autograd.grad(weighted_sum(expected), learned)):
            assert_close(mine, plain, GRADIENTS[dtype], "gradient")


@pytest.mark.parametrize("chunk", [0, 12])
def test_own_vectors_in_the_attention_of_a_gpu(monkeypatch, chunk):
    clip_model = deeper_clip(torch.float64)
    prompts = list(sequences("end", 2, NAMES, per_class=False))
    context = vectors(1, 2, 2, 64, dtype=torch.float64)
    own = vectors(2, 2 * len(NAMES), 64, dtype=torch.float64)
    found = []
    for attend in (text.attend, tree_attention.fused_attention):
        monkeypatch.setattr(text, "attend", attend)
        features = TextEncoder(clip_model, chunk)(context, ForkedTree(prompts, 2, 2), own=own)
        found.append([features, *torch.autograd.grad(weighted_sum(features), (context, own))])
    for tile_by_tile, fused in zip(*found):
        assert_close(fused, tile_by_tile, 1e-12)


def test_what_each_class_s_own_vectors_do_not_touch_is_computed_once():
    prompts = list(sequences("end", 4, NAMES, per_class=False))
    (rows,) = ForkedTree(prompts, 4, 1).rows(10**9, torch.device("cpu"), torch.float32)
    (shared,) = PromptTree(prompts).rows(10**9, torch.device("cpu"), torch.float32)
    assert len(rows.vector) == 4 and len(rows.token) == len(shared.token)
    assert len(rows.fork.rows.vector) == 4 * len(NAMES)


# --- images ---------------------------------------------------------------------------------------


def plain_image(visual: Any, image: Tensor, prompts: Tensor, deep: Tensor | None) -> Tensor:
    x = visual.conv1(image).flatten(2).transpose(1, 2)  # (B, patches, D)
    first = visual.class_embedding.expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + visual.positional_embedding
    length = x.shape[1]
    x = visual.ln_pre(torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1))
    places = torch.arange(length, x.shape[1]).expand(len(x), -1)
    x = blocks_with(visual.transformer.resblocks, x.transpose(0, 1), places, deep)
    return visual.ln_post(x[0]) @ visual.proj


@DTYPES
@pytest.mark.parametrize("batch", [1, 3, 7])  # 7: two groups on a CPU
@pytest.mark.parametrize("name", ["vit_a", "vit_b"])
def test_image(name, batch, dtype):
    visual = visual_in(name, dtype)
    width, blocks = visual.class_embedding.shape[0], len(visual.transformer.resblocks)
    image = images(batch, image_size(name), batch).to(dtype)
    for depth, n in [(1, 1), (1, 5), (2, 2), (blocks, 3)]:
        prompts = vectors(3, n, width, dtype=dtype)
        deep = vectors(4, depth - 1, n, width, dtype=dtype)
        expected = plain_image(visual, image, prompts, deep)
        features = ImageEncoder(visual)(image, prompts, deep)
        assert_close(features, expected, FEATURES[dtype], "features")
        learned = (prompts, deep) if depth > 1 else (prompts,)
        gradients = torch.autograd.grad(weighted_sum(features), learned)
        for own, plain in zip(gradients, torch.autograd.grad(weighted_sum(expected), learned)):
            assert_close(own, plain, GRADIENTS[dtype], "gradient")
        with torch.no_grad():
            assert_close(ImageEncoder(visual)(image, prompts, deep), expected, FEATURES[dtype])


def test_no_prompts_are_no_prompts():
    visual = visual_in("vit_a", torch.float32)
    image, width = images(2, image_size("vit_a"), 1), visual.class_embedding.shape[0]
    encoder = ImageEncoder(visual)
    assert torch.equal(encoder(image, torch.empty(0, width)), encoder(image))
    assert not any(p.grad is not None for p in visual.parameters())


# --- what cannot be -------------------------------------------------------------------------------


def test_deeper_than_the_tower():
    clip_model, visual = clip_in(torch.float32), visual_in("vit_a", torch.float32)
    tree = PromptTree(list(sequences("end", 2, NAMES, per_class=False)))
    width, blocks = visual.class_embedding.shape[0], len(visual.transformer.resblocks)
    image = images(1, image_size("vit_a"), 1)
    with pytest.raises(ConfigError, match=f"for {blocks + 1} blocks, but this tower has {blocks}"):
        ImageEncoder(visual)(image, torch.zeros(2, width), torch.zeros(blocks, 2, width))
    blocks = len(clip_model.transformer.resblocks)
    with pytest.raises(ConfigError, match=f"for {blocks + 1} blocks, but this tower has {blocks}"):
        TextEncoder(clip_model)(torch.zeros(1, 2, 64), tree, torch.zeros(blocks, 2, 64))
    forked = ForkedTree(list(sequences("end", 2, NAMES, per_class=False)), 2, blocks)
    with pytest.raises(ConfigError, match=f"behind block {blocks}, but .* set 1 to {blocks - 1}"):
        TextEncoder(clip_model)(torch.zeros(1, 2, 64), forked, own=torch.zeros(10, 64))
    with pytest.raises(ConfigError, match="2 learned vectors and the deeper ones 3"):
        TextEncoder(clip_model)(torch.zeros(1, 2, 64), tree, torch.zeros(1, 3, 64))


def test_a_resnet_has_no_patches():
    with pytest.raises(ConfigError, match="ModifiedResNet is none: choose a ViT"):
        ImageEncoder(golden_clip("rn_a").visual)(
            images(1, image_size("rn_a"), 1), torch.zeros(2, 64)
        )
