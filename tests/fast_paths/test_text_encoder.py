"""Every shortcut of text encoding against the plain path.

The plain path is CLIP's own: prompts padded to 77 positions, a mask, all of them through the
transformer and the last norm, and only then the row of the end token. Our encoder cuts after the
longest end token, uses fused attention, encodes in chunks that it recomputes in the backward pass,
and keeps CoOp's class features between the batches of an evaluation.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dassl.utils import ConfigError
from encoders.image import ImageEncoder
from encoders.openai import CLIP
from encoders.prompt_tree import PromptTree, learned_token
from encoders.text import TextEncoder, free_bytes
from tests.golden_recipes import assert_close, custom_clip, golden_clip, images
from trainers import cocoop, coop

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
# (lengths of the prompts, tokens a chunk): one class; ragged names; chunks of 1, 2, 5 and all
# prompts, of which 2 leave a last chunk of one; a chunk smaller than a prompt.
SIZES = [
    ([5], 8192),
    ([5], 1),
    ([77], 8192),
    ([9, 3, 12, 7, 12, 2, 5], 8192),
    ([9, 3, 12, 7, 12, 2, 5], 12),
    ([9, 3, 12, 7, 12, 2, 5], 24),
    ([9, 3, 12, 7, 12, 2, 5], 71),
    ([9, 3, 12, 7, 12, 2, 5], 84),
    ([30, 76, 77], 5),
]
CASE: dict[str, Any] = {"model": "vit_a", "N_CTX": 4, "CTX_INIT": "", "ctx_seed": 1}
CASE |= {"CSC": False, "CLASS_TOKEN_POSITION": "middle"}
NAMES = ["cat", "snow_leopard", "hand-held computer", "Herbaceous Vegetation Land", "2012_Acura_TL"]


@functools.cache
def clip_in(dtype: torch.dtype) -> CLIP:
    """A golden model in a precision; CLIP's norms compute in float32, so double needs torch's."""
    model = copy.deepcopy(golden_clip("vit_a")).to(dtype)
    if dtype == torch.float64:
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.__class__ = nn.LayerNorm
    return model


def plain_features(clip_model: CLIP, prompts: Tensor, eot: Tensor) -> Tensor:
    """Prompts (N, L, D) → features (N, E); what stands after the end token must not matter."""
    n, length, width = prompts.shape
    padding = torch.full((n, 77 - length, width), 0.3, dtype=prompts.dtype)
    x = torch.cat([prompts, padding], dim=1) + clip_model.positional_embedding  # (N, 77, D)
    x = clip_model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
    x = clip_model.ln_final(x)
    return x[torch.arange(n), eot] @ clip_model.text_projection


def random_prompts(lengths: list[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    shape = (len(lengths), max(lengths), 64)
    prompts = 0.1 * torch.randn(shape, generator=generator, dtype=dtype)
    return prompts.requires_grad_(), torch.tensor(lengths) - 1


def weighted_sum(features: Tensor) -> Tensor:
    """A scalar in which every feature counts differently."""
    return (features * torch.arange(features.numel()).view_as(features).sin()).sum()


@DTYPES
@pytest.mark.parametrize(("lengths", "chunk_tokens"), SIZES)
def test_features_and_gradients(dtype, lengths, chunk_tokens):
    clip_model = clip_in(dtype)
    prompts, eot = random_prompts(lengths, dtype)
    expected = plain_features(clip_model, prompts, eot)
    (expected_grad,) = torch.autograd.grad(weighted_sum(expected), prompts)
    encoder = TextEncoder(clip_model, chunk_tokens)
    features = encoder(prompts, eot)
    (grad,) = torch.autograd.grad(weighted_sum(features), prompts)
    assert_close(features, expected, TOLERANCE[dtype], "features")
    assert_close(grad, expected_grad, TOLERANCE[dtype], "gradient")
    with torch.no_grad():
        assert_close(encoder(prompts, eot), expected, TOLERANCE[dtype], "features, no gradient")


@DTYPES
def test_tokens_against_clips_own_encoding(dtype):
    clip_model = clip_in(dtype)
    tokens = custom_clip(coop, CASE, NAMES).prompt_learner.tokenized_prompts
    with torch.no_grad():
        expected = clip_model.encode_text(tokens)
    assert_close(TextEncoder(clip_model).encode_tokens(tokens), expected, TOLERANCE[dtype])
    assert_close(TextEncoder(clip_model, 1).encode_tokens(tokens), expected, TOLERANCE[dtype])


def kept_values(chunk_tokens: int) -> int:
    """Counts the numbers that encoding 16 prompts keeps for the backward pass."""
    prompts, eot = random_prompts([12] * 16, torch.float32)
    sizes = {}  # by address: a tensor that is kept twice takes its memory once

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        TextEncoder(clip_in(torch.float32), chunk_tokens)(prompts, eot)
    return sum(sizes.values())


def test_recomputed_chunks_keep_fewer_activations():
    assert kept_values(chunk_tokens=24) < 0.2 * kept_values(chunk_tokens=8192)


# --- CoCoOp: all images of a batch at once --------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("chunk_tokens", [8192, 1, 31, 40])
def test_batch_of_images_against_a_loop(dtype, chunk_tokens):
    case = {**CASE, "meta_seed": 2}
    model = custom_clip(cocoop, case, NAMES)
    clip_model, learner = clip_in(dtype), model.prompt_learner.to(dtype)
    model.text_encoder = TextEncoder(clip_model, chunk_tokens)
    generator = torch.Generator().manual_seed(3)
    image_features = torch.randn(3, 64, generator=generator, dtype=dtype)
    image_features /= image_features.norm(dim=-1, keepdim=True)
    parameters = list(learner.parameters())

    rows = []
    for image_feature in image_features:
        prompts = learner(image_feature[None])[0]  # (C, L, D)
        features = plain_features(clip_model, prompts, learner.eot)
        rows.append(features / features.norm(dim=-1, keepdim=True))
    expected = torch.stack(rows)  # (B, C, E)
    expected_grads = torch.autograd.grad(weighted_sum(expected), parameters)
    features = model.text_features(image_features)
    grads = torch.autograd.grad(weighted_sum(features), parameters)
    assert_close(features, expected, TOLERANCE[dtype], "features")
    for grad, expected_grad in zip(grads, expected_grads):
        assert_close(grad, expected_grad, TOLERANCE[dtype], "gradient")


# --- CoOp: class features are kept while nothing changes ------------------------------------------


@pytest.fixture
def counted():
    """A CoOp model in evaluation mode, and a list that grows with every text encoding."""
    model = custom_clip(coop, CASE, NAMES).eval()
    calls: list[None] = []
    model.text_encoder.register_forward_hook(lambda *_: calls.append(None))
    return model, calls


def evaluate(model: coop.CustomCLIP) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(images(2, 32, seed)) for seed in range(3)])


def test_one_encoding_an_evaluation(counted):
    model, calls = counted
    logits = evaluate(model)
    assert len(calls) == 1
    with torch.enable_grad():
        expected = torch.cat([model(images(2, 32, seed)) for seed in range(3)])
    assert_close(logits, expected, 5e-6)


def test_encoded_again_after_a_step(counted):
    model, calls = counted
    before = evaluate(model)
    optimizer = torch.optim.SGD(model.prompt_learner.parameters(), lr=0.01)
    model(images(2, 32, 0)).sum().backward()
    optimizer.step()
    calls.clear()
    after = evaluate(model)
    assert len(calls) == 1
    assert not torch.equal(before, after)


def test_encoded_again_after_loading(counted):
    model, calls = counted
    other = custom_clip(coop, {**CASE, "ctx_seed": 2}, NAMES).eval()
    evaluate(model)
    model.prompt_learner.load_state_dict(other.prompt_learner.state_dict())
    calls.clear()
    assert torch.equal(evaluate(model), evaluate(other))
    assert len(calls) == 1


def test_encoded_again_after_the_context_was_replaced(counted):
    model, calls = counted
    before = evaluate(model)
    model.prompt_learner.ctx = nn.Parameter(model.prompt_learner.ctx.detach() * 2)
    calls.clear()
    assert not torch.equal(evaluate(model), before)
    assert len(calls) == 1


@pytest.mark.parametrize("csc", [False, True])
def test_encoded_again_after_a_write_that_leaves_no_trace(csc):
    """Writes through `.data` are seen from the next training or evaluation on."""
    model = custom_clip(coop, {**CASE, "CSC": csc}, NAMES).eval()
    ctx = model.prompt_learner.ctx
    before = evaluate(model)
    trace = ctx.data_ptr(), ctx._version
    ctx.data[..., -1, -1] += 0.5
    assert (ctx.data_ptr(), ctx._version) == trace
    model.eval()  # as every evaluation begins
    fresh = custom_clip(coop, {**CASE, "CSC": csc}, NAMES).eval()
    fresh.prompt_learner.load_state_dict(model.prompt_learner.state_dict())
    after = evaluate(model)
    assert torch.equal(after, evaluate(fresh))
    assert not torch.equal(after, before)


def test_encoded_again_in_another_precision(counted):
    model, calls = counted
    evaluate(model)
    model.prompt_learner.ctx.data = model.prompt_learner.ctx.data.bfloat16().float()
    evaluate(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        evaluate(model)
    assert len(calls) == 3


def test_kept_in_inference_mode(counted):
    model, calls = counted
    with torch.inference_mode():
        for seed in range(2):
            model(images(2, 32, seed))
    assert len(calls) == 1


def test_training_after_an_evaluation_in_inference_mode():
    """What the evaluation folded and laid out serves the training, whoever asked first."""
    clip_model = copy.deepcopy(clip_in(torch.float32))
    tree = PromptTree([[49406, learned_token(0), 320, 49407], [49406, learned_token(0), 5, 49407]])
    encoder, context = TextEncoder(clip_model), torch.zeros(1, 1, 64, requires_grad=True)
    images_in, prompts = images(1, 32, 0), torch.zeros(2, 64, requires_grad=True)
    image_encoder = ImageEncoder(clip_model.visual)
    with torch.inference_mode():
        expected = encoder(context, tree).clone(), image_encoder(images_in, prompts).clone()
    features = encoder(context, tree), image_encoder(images_in, prompts)
    for own, other in zip(features, expected):
        assert_close(own, other, 1e-6)
        own.sum().backward()
    assert context.grad.abs().sum() > 0 and prompts.grad.abs().sum() > 0


def test_on_several_gpus_it_says_that_it_runs_on_one():
    """As DataParallel asks each module for a copy of it."""
    module = nn.Sequential(nn.Sequential(TextEncoder(golden_clip("vit_a"))))
    with pytest.raises(ConfigError, match=r"leave out nn.DataParallel, or type CUDA_VISIBLE_DEV"):
        for part in module.modules():
            part._replicate_for_data_parallel()


def test_memory_that_torch_holds_unused_is_free(monkeypatch):
    """Or a worker's second run would have smaller chunks than its first."""
    for name, gib in {"reserved": 60, "allocated": 2}.items():
        monkeypatch.setattr(torch.cuda, f"memory_{name}", lambda device, gib=gib: gib * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (19 * 2**30, 80 * 2**30))
    assert free_bytes(torch.device("cuda")) == 77 * 2**30
