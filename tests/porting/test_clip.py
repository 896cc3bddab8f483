"""The package `clip` for other people's files: names, files, designs; exact against plain CLIP."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from clip.clip import _MODELS, _download
from clip.model import PromptedVision, build_model
from torch import Tensor, nn

import clip
from dassl.utils import CheckpointError, ConfigError, UnknownNameError
from encoders.load import load_model
from encoders.openai import BACKBONES, CLIP, WIDE, read_weights
from encoders.openai import build_model as openais

TEXTS = ["a photo of a cat.", "dog", "a b c d e f g h i"]


def visual_sizes(kind: str) -> dict[str, int | tuple[int, ...]]:
    if kind == "RN":
        return {"image_resolution": 64, "vision_layers": (1, 1, 1, 1), "vision_width": 16}
    return {"image_resolution": 32, "vision_layers": 3, "vision_width": 64}


def weights(kind: str = "ViT") -> dict[str, Tensor]:
    """A small CLIP with random weights."""
    torch.manual_seed(0)
    model = CLIP(
        embed_dim=32,
        **visual_sizes(kind),
        vision_patch_size=None if kind == "RN" else 16,
        **{"context_length": 77, "vocab_size": 49408},
        **{"transformer_width": 64, "transformer_heads": 1, "transformer_layers": 3},
    )
    return {key: value.half().float() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def vit() -> dict[str, Tensor]:
    return weights()


def built(state: dict[str, Tensor], **design: object) -> nn.Module:
    """Builds a CLIP in float64; OpenAI's norms compute in float32, so plain ones take over."""
    model = build_model(state, design or None).double()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.forward = partial(nn.LayerNorm.forward, module)
    return model


def design(trainer: str = "IVLP", depth: int = 3, n: int = 4) -> dict[str, object]:
    depths, lengths = ("vision_depth", "language_depth"), ("vision_ctx", "language_ctx")
    return {"trainer": trainer, **dict.fromkeys(depths, depth), **dict.fromkeys(lengths, n)}


def images() -> Tensor:
    return torch.randn(5, 3, 32, 32, dtype=torch.float64, generator=torch.manual_seed(1))


# --- names and files ------------------------------------------------------------------------------


def test_names():
    from clip.model import ResidualAttentionBlock, convert_weights  # noqa: F401
    from clip.simple_tokenizer import SimpleTokenizer

    assert SimpleTokenizer().encode("cat") == clip.clip._tokenizer.encode("cat")
    assert set(_MODELS) == {*BACKBONES, WIDE} == set(clip.available_models())
    assert clip.tokenize("a cat").shape == (1, 77)
    assert clip.tokenize(["cat " * 99], truncate=True).shape == (1, 77)


def test_the_embedded_one_is_a_file_that_torch_reads(tmp_path: Path):
    for root in (None, str(tmp_path)):
        path = _download(_MODELS["tiny"], *([] if root is None else [root]))
        state = torch.load(path, map_location="cpu")
        for key, value in read_weights("tiny").items():
            assert torch.equal(state[key], value)
    assert Path(path).is_relative_to(tmp_path)
    assert path == _download("tiny", str(tmp_path)), "written once"


def test_a_weights_file_is_a_name_too(tmp_path: Path, vit):
    torch.save(vit, tmp_path / "own.pt")
    assert _download(_MODELS[str(tmp_path / "own.pt")]) == str(tmp_path / "own.pt")


def test_unknown_name():
    with pytest.raises(UnknownNameError, match=r"'ViT-B16'.*tiny.*Did you mean 'ViT-B/16'"):
        _MODELS["ViT-B16"]


@pytest.mark.parametrize("root", [None, "mine"])
def test_addresses_are_fetched_with_their_checksum(tmp_path: Path, monkeypatch, root):
    asked = []
    monkeypatch.setattr(clip.clip, "download", lambda *args, **kw: asked.append((args, kw)))
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path))
    url = _MODELS["ViT-B/32"]
    found = Path(_download(url, *([] if root is None else [root])))
    assert found == (tmp_path if root is None else Path(root)) / "ViT-B-32.pt"
    assert asked == [((url, found), {"sha256": url.split("/")[-2]})]


def test_load():
    model, transform = clip.load("tiny", device="cpu")
    ours = load_model("tiny", "fp32")
    tokens = clip.tokenize(TEXTS)
    assert torch.equal(model.encode_text(tokens), ours.encode_text(tokens))
    from PIL import Image

    assert transform(Image.new("RGB", (50, 40))).shape == (3, 32, 32)
    with pytest.raises(ValueError, match="jit is True"):
        clip.load("tiny", jit=True)


# --- designs --------------------------------------------------------------------------------------

PLAIN = {
    "no design": {},
    "CoOp": design("CoOp", 0, 0),
    "a name of their own": design("TheirMethod", 0, 0),
    "no depth": design("IVLP", 0, 4),
    "no vectors": design("IVLP", 3, 0),
    "VPT without vectors": {**design("VPT", 0, 0), "vision_depth": 2},
    "MaPLe, as a plain one": {**design("MaPLe", 0, 0), "maple_length": 2},
}


@pytest.mark.parametrize("details", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("half", [True, False])
def test_without_prompts_all_designs_are_openais(vit, details, half: bool):
    plain, model = openais(dict(vit)), build_model(vit, details)
    if not half:
        plain.float(), model.float()
    tokens, x = clip.tokenize(TEXTS), images().to(model.dtype)
    with torch.no_grad():
        assert torch.equal(model.encode_text(tokens), plain.encode_text(tokens))
        assert torch.equal(model.encode_image(x), plain.encode_image(x))


def slow_image(plain: nn.Module, x: Tensor, deep: list[Tensor]) -> Tensor:
    """Image by image: `deep[i]`, if there is one, stands behind the patches in block i."""
    visual, features = plain.visual, []
    for image in x:
        patches = visual.conv1(image[None])[0].flatten(1).t()
        tokens = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        n = len(tokens)
        tokens = visual.ln_pre(torch.cat([tokens, deep[0]]))
        for i, block in enumerate(visual.transformer.resblocks):
            tokens = tokens if i == 0 or i >= len(deep) else torch.cat([tokens[:n], deep[i]])
            tokens = block(tokens[:, None])[:, 0]
        features.append(visual.ln_post(tokens[0]) @ visual.proj)
    return torch.stack(features)


def slow_text(plain: nn.Module, ids: Tensor, deep: list[Tensor | None]) -> Tensor:
    """Text by text: `deep[i]`, if there is one, stands behind the start token in block i."""
    features = []
    for row in ids:
        tokens = plain.token_embedding(row) + plain.positional_embedding
        for i, block in enumerate(plain.transformer.resblocks):
            if i < len(deep) and deep[i] is not None:
                tokens = torch.cat([tokens[:1], deep[i], tokens[1 + len(deep[i]) :]])
            tokens = block(tokens[:, None])[:, 0]
        features.append(plain.ln_final(tokens)[row.argmax()] @ plain.text_projection)
    return torch.stack(features)


def own_vectors(transformer: nn.Module) -> list[Tensor]:
    found = [block.VPT_shallow for block in transformer.resblocks]
    return [vectors for vectors in found if vectors is not None]


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_towers_with_vectors_of_their_own(vit, depth: int, n: int):
    plain, model = built(vit), built(vit, **design(depth=depth, n=n))
    visual, text = model.visual, model.transformer
    deep = own_vectors(visual.transformer)
    assert len(deep) == len(own_vectors(text)) == depth - 1
    assert {v.shape for v in [visual.VPT, *deep, *own_vectors(text)]} == {(n, 64)}
    expected = slow_image(plain, images(), [visual.VPT, *deep])
    torch.testing.assert_close(model.encode_image(images()), expected, rtol=0, atol=1e-12)
    ids = clip.tokenize(TEXTS)
    expected = slow_text(plain, ids, [None, *own_vectors(text)])
    torch.testing.assert_close(model.encode_text(ids), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_prompts_that_the_trainer_brings(vit, depth: int):
    plain, model = built(vit), built(vit, **design("MaPLe", 0, 0), maple_length=2)
    torch.manual_seed(2)
    shared, *deep = torch.randn(depth, 2, 64, dtype=torch.float64, requires_grad=True)
    ours = model.visual(images(), shared, deep)
    expected = slow_image(plain, images(), [shared, *deep])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    ids = clip.tokenize(TEXTS)
    x = plain.token_embedding(ids) + plain.positional_embedding
    x, same, used = model.transformer([x.permute(1, 0, 2), deep, 0])
    assert same is deep and used == min(depth - 1, 2)
    ends = model.ln_final(x.permute(1, 0, 2))[torch.arange(len(ids)), ids.argmax(-1)]
    expected = slow_text(plain, ids, [None, *deep])
    torch.testing.assert_close(ends @ model.text_projection, expected, rtol=0, atol=1e-12)
    assert torch.autograd.grad(ours.sum(), shared)[0].abs().min() > 0


def test_names_that_rules_of_freezing_look_for(vit):
    model, plain = built(vit, **design(depth=2)), built(vit)
    new = {name for name, _ in model.named_parameters()} - dict(plain.named_parameters()).keys()
    assert new == {
        *("visual.VPT", "visual.transformer.resblocks.1.VPT_shallow"),
        "transformer.resblocks.1.VPT_shallow",
    }
    model.load_state_dict(plain.state_dict(), strict=False)
    assert isinstance(copy.deepcopy(model).visual, PromptedVision)


def test_half_precision_reaches_vectors_in_full(vit):
    """As built, products are in half precision; learned vectors are not, and get gradients."""
    model = build_model(vit, design())
    model.encode_image(images()).float().sum().backward()
    assert model.dtype == torch.float16 and model.visual.VPT.dtype == torch.float32
    assert model.visual.VPT.grad.abs().sum() > 0


# --- what cannot be -------------------------------------------------------------------------------


def test_deeper_than_the_tower(vit, caplog, capsys):
    model = built(vit, **design(depth=9))
    assert len(own_vectors(model.transformer)) == 2
    said = caplog.text + capsys.readouterr().out
    assert "vision_depth is 9, and the tower has 3 blocks" in said


@pytest.mark.parametrize("details", [design(), {**design("MaPLe", 0, 0), "maple_length": 2}])
def test_a_resnet_has_no_patches(details):
    with pytest.raises(ConfigError, match="which a ResNet has not; expected a vision transformer"):
        build_model(weights("RN"), details)
    text_only = {**design(), "vision_depth": 0}
    assert len(own_vectors(build_model(weights("RN"), text_only).transformer)) == 2


def test_unknown_design(vit):
    with pytest.raises(ConfigError, match=r"is 'IVLPP'; expected one of .*Did you mean 'IVLP'"):
        build_model(vit, design("IVLPP"))


def test_no_clip():
    with pytest.raises(CheckpointError, match="no CLIP in OpenAI's layout"):
        build_model({"weight": torch.zeros(1)})


@pytest.mark.parametrize("name", ["IVLP", "MaPLe"])
def test_gradients_of_gradients(vit: dict[str, Tensor], name: str):
    """Trainers that learn how to learn take them."""
    model = build_model(vit, design(name) if name == "IVLP" else {"trainer": name}).float()
    vectors = [0.1 * torch.randn(4, 64, requires_grad=True) for _ in range(2)]
    prompts = () if name == "IVLP" else (vectors[0], vectors[1:])
    features = model.visual(images().float(), *prompts)
    learned = model.visual.VPT if name == "IVLP" else vectors[0]
    (first,) = torch.autograd.grad(features.square().sum(), learned, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), learned)
    assert torch.isfinite(second).all() and second.abs().sum() > 0
