"""The text encoder's tree of shared beginnings against the plain path of `benchmarks/plain.py`.

Tolerances are relative to the largest value: float64 1e-12, float32 2e-5 for features and 1e-4 for
gradients.
"""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from clip.model import CLIP
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks import plain
from encoders import prompt_tree, text
from encoders.kernels import tree_attention
from encoders.kernels.frozen_linear import FrozenLinear
from encoders.kernels.gemm import BACKENDS, default_backend, onednn_works
from encoders.prompt_tree import PromptTree, learned_token
from encoders.text import TextEncoder
from tests.golden_recipes import assert_close, custom_clip, golden_clip
from trainers import cocoop, coop

FEATURES = {torch.float64: 1e-12, torch.float32: 2e-5}
GRADIENTS = {torch.float64: 1e-12, torch.float32: 1e-4}
DTYPES = pytest.mark.parametrize("dtype", FEATURES, ids=str)
START, STOP, END = 98, 5, 99  # token ids of the small vocabulary

Names = list[list[int]]  # the token ids of each name


@functools.cache
def small_clip(dtype: torch.dtype, width: int = 64, layers: int = 3) -> CLIP:
    """A frozen CLIP with random weights, norms included, and a vocabulary of 100 tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(width + layers)
        model = CLIP(32, 16, 1, 64, 16, 77, 100, width, width // 64, layers)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "ln_" in name or name.endswith("bias"):
                    parameter += 0.2 * torch.randn_like(parameter)
    return in_precision(model.requires_grad_(False), dtype)


def in_precision(model: CLIP, dtype: torch.dtype) -> CLIP:
    """CLIP's own norms compute in float32, so double needs torch's."""
    model = copy.deepcopy(model).to(dtype)
    if dtype == torch.float64:
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.__class__ = nn.LayerNorm
    return model


def sequences_of(names: Names, n_ctx: int, position: str, class_specific: bool) -> Names:
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    sequences = []
    for c, name in enumerate(names):
        first = c * n_ctx if class_specific else 0
        ctx = [learned_token(first + m) for m in range(n_ctx)]
        sequences.append([START, *ctx[:before], *name, *ctx[before:], STOP, END])
    return sequences


def plain_features(clip_model: CLIP, context: Tensor, sequences: Names) -> Tensor:
    """(G, V, D) context → (G, C, E), each prompt by itself."""
    eot = torch.tensor([len(sequence) - 1 for sequence in sequences])
    table = clip_model.token_embedding.weight
    features = []
    for vectors in context:
        embeddings = torch.cat([table, vectors.flip(0)])  # learned_token(i) counts from the end
        ids = torch.full((len(sequences), 77), 7)  # what stands after the end must not matter
        for row, sequence in zip(ids, sequences):
            row[: len(sequence)] = torch.tensor(sequence) % len(embeddings)
        features.append(plain.encode_prompts(clip_model, embeddings[ids], eot))
    return torch.stack(features)


def context_for(sequences: Names, groups: int, width: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(len(sequences))
    n_vectors = -min(map(min, sequences))
    shape = (groups, n_vectors, width)
    return (0.3 * torch.randn(shape, generator=generator, dtype=dtype)).requires_grad_()


def weighted_sum(features: Tensor) -> Tensor:
    """A scalar in which every feature counts differently."""
    return (features * torch.arange(features.numel()).view_as(features).sin()).sum()


def check(encoder: TextEncoder, clip_model: CLIP, sequences: Names, groups: int = 1) -> None:
    """Features and gradients of an encoder against the plain path's."""
    dtype, width = clip_model.dtype, clip_model.ln_final.weight.shape[0]
    context = context_for(sequences, groups, width, dtype)
    expected = plain_features(clip_model, context, sequences)
    (expected_grad,) = torch.autograd.grad(weighted_sum(expected), context)
    tree = PromptTree(sequences)
    features = encoder(context, tree)
    (grad,) = torch.autograd.grad(weighted_sum(features), context)
    assert_close(features, expected, FEATURES[dtype], "features")
    assert_close(grad, expected_grad, GRADIENTS[dtype], "gradient")
    with torch.no_grad():
        assert_close(encoder(context, tree), expected, FEATURES[dtype], "without gradient")


KINDS = [("end", False), ("middle", False), ("front", False)]
KINDS += [(position, True) for position, _ in KINDS]
CLASS_LISTS = {
    "one": [[11]],
    "one long": [list(range(10, 50))],
    "duplicates": [[11, 12], [13], [11, 12], [13]],
    "nested": [[11], [11, 12], [11, 12, 13], [12]],
    "ragged": [[10 + (i * j) % 37 for j in range(1 + (7 * i) % 40)] for i in range(12)],
}


@pytest.fixture(params=[0, 10**9], ids=["tiles", "no tiles"])
def few(request, monkeypatch):
    """How many rows are few: none, or any number."""
    monkeypatch.setattr(prompt_tree, "FEW_ROWS", request.param)


@DTYPES
@pytest.mark.parametrize(("position", "class_specific"), KINDS)
@pytest.mark.parametrize("names", CLASS_LISTS.values(), ids=CLASS_LISTS)
def test_positions_and_names(few, dtype, position, class_specific, names):
    clip_model = small_clip(dtype)
    sequences = sequences_of(names, 5, position, class_specific)
    check(TextEncoder(clip_model), clip_model, sequences)


@DTYPES
@pytest.mark.parametrize("groups", [1, 3, 7])
@pytest.mark.parametrize("chunk", [0, 1, 20, 45, 1000])
def test_images_and_chunks(few, dtype, groups, chunk):
    """Chunks of one class, of some classes, of several images, and one chunk for all."""
    clip_model = small_clip(dtype)
    sequences = sequences_of(CLASS_LISTS["ragged"][:6], 4, "end", False)
    check(TextEncoder(clip_model, chunk), clip_model, sequences, groups)


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 128, 512, 640, 768])
def test_text_widths(width):
    clip_model = small_clip(torch.float64, width, layers=2)
    sequences = sequences_of(CLASS_LISTS["nested"], 3, "middle", False)
    check(TextEncoder(clip_model), clip_model, sequences, groups=2)


def test_a_tower_of_one_layer():
    clip_model = small_clip(torch.float64, layers=1)
    check(TextEncoder(clip_model), clip_model, sequences_of(CLASS_LISTS["nested"], 2, "end", False))


names = st.lists(st.integers(10, 14), min_size=1, max_size=8)  # few tokens: many shared beginnings


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(names, min_size=1, max_size=30),
    st.integers(1, 6),
    st.sampled_from(KINDS),
    st.integers(1, 3),
    st.sampled_from([0, 1, 17, 64]),
)
def test_random_class_lists(names, n_ctx, kind, groups, chunk):
    clip_model = small_clip(torch.float64, layers=2)
    check(TextEncoder(clip_model, chunk), clip_model, sequences_of(names, n_ctx, *kind), groups)


def test_tree_computes_no_token_twice():
    """4 context vectors, 5 name tokens, and for each class a full stop and an end token."""
    sequences = sequences_of([[11], [11, 12], [11, 13, 14], [12]], 4, "end", False)
    tree = PromptTree(sequences)
    (rows,) = tree.rows(10**6, torch.device("cpu"), torch.float32)
    assert tree.frozen == [(START,)]
    assert rows.n_rows == 4 + 5 + 4 * 2
    in_front = PromptTree(sequences_of([[11], [11, 12]], 4, "front", False))
    assert in_front.frozen == [(START,), (START, 11), (START, 11, 12)]


# --- the methods ----------------------------------------------------------------------------------

CASE = {"model": "vit_a", "N_CTX": 4, "CTX_INIT": "", "ctx_seed": 1}
LISTS = {
    "one": ["cat"],
    "ragged": ["cat", "snow_leopard", "hand-held computer", "2012_Acura_TL", "cat", "Corp."],
}


def build(module, names: list[str], **options) -> tuple[nn.Module, CLIP]:
    """Returns a CustomCLIP in float64, and its CLIP."""
    case = {**CASE, "CSC": False, "CLASS_TOKEN_POSITION": "end", **options}
    model = custom_clip(module, case, names)
    model.prompt_learner.double()
    clip_model = in_precision(golden_clip("vit_a"), torch.float64)
    model.text_encoder = TextEncoder(clip_model)
    return model, clip_model


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("names", LISTS.values(), ids=LISTS)
def test_coop(names, position, class_specific):
    model, clip_model = build(coop, names, CLASS_TOKEN_POSITION=position, CSC=class_specific)
    expected = plain.coop_features(model, clip_model, position)
    features = model.text_features()
    assert_close(features, expected, 1e-12, "features")
    ctx = model.prompt_learner.ctx
    grads = [torch.autograd.grad(weighted_sum(f), ctx)[0] for f in (features, expected)]
    assert_close(*grads, 1e-12, "gradient")


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("names", LISTS.values(), ids=LISTS)
def test_cocoop(names, batch):
    model, clip_model = build(cocoop, names, meta_seed=2)
    generator = torch.Generator().manual_seed(batch)
    image_features = torch.randn(batch, 64, generator=generator, dtype=torch.float64)
    parameters = list(model.prompt_learner.parameters())
    expected = plain.cocoop_features(model, clip_model, image_features)
    features = model.text_features(image_features)
    assert_close(features, expected, 1e-12, "features")
    grads = torch.autograd.grad(weighted_sum(features), parameters)
    expected_grads = torch.autograd.grad(weighted_sum(expected), parameters)
    for grad, expected_grad in zip(grads, expected_grads):
        assert_close(grad, expected_grad, 1e-12, "gradient")


# --- frozen weights -------------------------------------------------------------------------------


def encode_some(encoder: TextEncoder, groups: int = 1) -> tuple[Tensor, Tensor]:
    sequences = sequences_of(CLASS_LISTS["ragged"], 4, "end", False)
    context = context_for(sequences, groups, 64, encoder.dtype)
    return encoder(context, PromptTree(sequences)), context


def test_folded_weights_follow_the_model():
    clip_model = copy.deepcopy(small_clip(torch.float32))
    encoder = TextEncoder(clip_model)
    before, _ = encode_some(encoder)
    other = {k: v * 1.1 for k, v in clip_model.state_dict().items()}
    clip_model.load_state_dict(other)
    after, _ = encode_some(encoder)
    assert not torch.allclose(before, after)
    fresh, _ = encode_some(TextEncoder(clip_model))
    assert torch.equal(after, fresh)
    rounded, _ = encode_some(encoder.bfloat16().float())  # maybe at the same addresses again
    assert not torch.equal(rounded, after)
    fresh, _ = encode_some(TextEncoder(copy.deepcopy(clip_model)))
    assert torch.equal(rounded, fresh)
    double = encoder.double()
    features, _ = encode_some(double)
    assert features.dtype == torch.float64


def test_nothing_new_in_the_state_dict():
    clip_model = small_clip(torch.float32)
    encoder = TextEncoder(clip_model)
    before = list(encoder.state_dict())
    encode_some(encoder)[0].sum().backward()
    assert list(encoder.state_dict()) == before
    assert set(before) <= set(clip_model.state_dict())
    copied = copy.deepcopy(encoder)
    assert torch.equal(encode_some(copied)[0], encode_some(encoder)[0])


def test_no_weight_gradients():
    clip_model = copy.deepcopy(small_clip(torch.float32)).requires_grad_(True)
    features, _ = encode_some(TextEncoder(clip_model))
    features.sum().backward()
    assert all(parameter.grad is None for parameter in clip_model.parameters())


def test_memory_kept_for_the_backward_pass():
    """At most 12 times the width for each token and block: no copies per class, no weights."""
    encoder = TextEncoder(small_clip(torch.float32, layers=4))
    sequences = sequences_of([[10 + i % 30, 12, i % 9] for i in range(200)], 16, "end", False)
    tree = PromptTree(sequences)
    context = context_for(sequences, 1, 64, torch.float32)
    encoder(context, tree)  # folds
    weights = {p.data_ptr() for p in encoder.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        encoder(context, tree)
    (rows,) = tree.rows(10**6, torch.device("cpu"), torch.float32)
    assert sum(kept.values()) < 12 * 64 * rows.n_rows * 4
    plain_tokens = 77 * len(sequences)
    assert rows.n_rows < plain_tokens / 20


def test_autocast_does_not_reach_the_products():
    encoder = TextEncoder(small_clip(torch.float64))
    expected, _ = encode_some(encoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = encode_some(encoder)
    assert encoder.folded.value.dtype == torch.bfloat16  # decided once, for the frozen weights
    assert_close(features.double(), expected, 0.05, "features")
    again, _ = encode_some(encoder)
    assert torch.equal(again, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_rows", [0, 1, 5, 300, 1700])
def test_gemm_backends(backend, n_rows):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=generator)
    bias = torch.randn(96, generator=generator)
    x = torch.randn(n_rows, 64, generator=generator, requires_grad=True)
    grad = torch.randn(n_rows, 96, generator=generator)
    layer = FrozenLinear(weight, bias, torch.float32, backend)
    out = layer(x)
    assert out.shape == (n_rows, 96)
    (dx,) = torch.autograd.grad(out, x, grad)
    assert dx.shape == x.shape
    if n_rows:
        assert_close(out, x.double() @ weight.double().t() + bias, 1e-6)
        assert_close(dx, grad.double() @ weight.double(), 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_are_the_same_on_all_backends(backend):
    clip_model = small_clip(torch.float32)
    sequences = sequences_of(CLASS_LISTS["ragged"], 4, "middle", False)
    check(TextEncoder(clip_model, backend=backend), clip_model, sequences, groups=2)


def test_choice_of_backend_draws_nothing_and_falls_back(monkeypatch):
    cpu = torch.device("cpu")
    state = torch.get_rng_state()
    assert default_backend(cpu, torch.float32) in BACKENDS
    assert torch.equal(torch.get_rng_state(), state)
    assert default_backend(cpu, torch.float64) == "torch"
    assert default_backend(torch.device("cuda"), torch.float16) == "torch"
    monkeypatch.setitem(BACKENDS, "onednn", lambda weight: torch.ops.mkldnn.no_such_operator)
    onednn_works.cache_clear()
    assert default_backend(cpu, torch.float32) == "torch"
    onednn_works.cache_clear()


# --- GPU, with CPU twins --------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize(("position", "class_specific"), KINDS)
def test_fused_attention(monkeypatch, dtype, position, class_specific):
    """The attention that GPUs use, here on the CPU."""
    monkeypatch.setattr(text, "attend", tree_attention.fused_attention)
    clip_model = small_clip(dtype)
    for names in CLASS_LISTS.values():
        sequences = sequences_of(names, 4, position, class_specific)
        check(TextEncoder(clip_model), clip_model, sequences, groups=2)


@pytest.mark.gpu
@DTYPES
@pytest.mark.parametrize(("position", "class_specific"), KINDS)
def test_gpu_equals_cpu(dtype, position, class_specific):
    sequences = sequences_of(CLASS_LISTS["ragged"], 4, position, class_specific)
    results = []
    for device in ("cpu", "cuda"):
        clip_model = copy.deepcopy(small_clip(dtype)).to(device)
        context = context_for(sequences, 2, 64, dtype).detach().to(device).requires_grad_()
        features = TextEncoder(clip_model)(context, PromptTree(sequences))
        weights = torch.arange(features.numel()).view_as(features).sin().to(device)
        (grad,) = torch.autograd.grad((features * weights).sum(), context)
        results.append((features.cpu(), grad.cpu()))
    for on_cpu, on_gpu in zip(*results):
        assert_close(on_gpu, on_cpu, 10 * GRADIENTS[dtype])


def half_precision_error(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Largest errors against float64 of our features and of the plain path's, frozen in half."""
    sequences = sequences_of(CLASS_LISTS["ragged"], 4, "end", False)
    exact = small_clip(torch.float64, layers=4)
    half = copy.deepcopy(small_clip(torch.float32, layers=4)).to(device, dtype)
    context = context_for(sequences, 2, 64, torch.float32).detach()
    with torch.no_grad():
        truth = plain_features(exact, context.double(), sequences)
        ours = TextEncoder(half)(context.to(device), PromptTree(sequences))
        plains = plain_features(half.cpu().float(), context, sequences)  # rounded weights alone
    errors = [(f.cpu().double() - truth).abs().max().item() for f in (ours, plains)]
    return errors[0], truth.abs().max().item()


def test_bfloat16_on_the_cpu():
    error, size = half_precision_error("cpu", torch.bfloat16)
    assert error < 0.05 * size


@pytest.mark.gpu
def test_float16_on_the_gpu():
    error, size = half_precision_error("cuda", torch.float16)
    assert error < 0.01 * size
