"""The embedded CLIP: its file, its state dict, and what it knows of handwritten digits."""

import numpy as np
import pytest
import torch
from PIL import Image

from encoders import tiny as tiny_clip
from encoders.tiny import ASSET, load_tiny_state_dict, widened

clip = pytest.importorskip("clip")

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLIP_MEAN, CLIP_STD = (
    torch.tensor(v).view(1, 3, 1, 1)
    for v in (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    )
)


@pytest.fixture(scope="module")
def state_dict() -> dict[str, torch.Tensor]:
    return load_tiny_state_dict()


@pytest.fixture(scope="module")
def model(state_dict: dict[str, torch.Tensor]) -> torch.nn.Module:
    return clip.model.build_model(dict(state_dict)).float()


def test_file_is_small_and_needs_no_pickle() -> None:
    assert ASSET.stat().st_size < 4_000_000
    stored = torch.load(ASSET, weights_only=True)
    assert all(isinstance(value, (torch.Tensor, int, float, str)) for value in stored.values())
    weights = {k: v for k, v in stored.items() if not k.startswith("meta.")}
    wide = [key for key, value in weights.items() if value.dtype != torch.float16]
    assert wide == ["logit_scale"]


def test_shapes_are_openai_layout(state_dict: dict[str, torch.Tensor]) -> None:
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    width, embed = shapes["visual.proj"]
    text_width = shapes["ln_final.weight"][0]
    assert shapes["token_embedding.weight"] == (49408, text_width)
    assert shapes["positional_embedding"] == (77, text_width)
    assert shapes["text_projection"] == (text_width, embed)
    assert shapes["visual.positional_embedding"] == (17, width)  # 4 x 4 patches + class
    assert width % 64 == 0 and text_width % 64 == 0  # heads are width // 64


@pytest.mark.slow
def test_in_the_widths_of_vit_b16(
    state_dict: dict[str, torch.Tensor], model: torch.nn.Module
) -> None:
    """The same similarities, to rounding, of features that are copies of the narrow ones."""
    wide = widened(state_dict)
    half = {key: value.half().float() for key, value in wide.items() if key != "logit_scale"}
    assert all((half[key] - wide[key]).abs().max() < 1e-7 for key in half), "float16 holds it"
    wide = clip.model.build_model(wide).float()
    assert wide.visual.conv1.out_channels == 768 and wide.ln_final.weight.shape == (512,)
    images = torch.randn(3, 3, 32, 32, generator=torch.manual_seed(0))
    texts = clip.tokenize(["a photo of a seven.", "eight"])
    with torch.no_grad():
        for encode, x in (("encode_image", images), ("encode_text", texts)):
            narrow, features = getattr(model, encode)(x), getattr(wide, encode)(x)
            torch.testing.assert_close(features, narrow.repeat(1, 8), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            wide(images, texts)[0], model(images, texts)[0], rtol=1e-4, atol=1e-3
        )


def test_values_are_finite_float32_that_float16_holds(state_dict: dict[str, torch.Tensor]) -> None:
    for key, value in state_dict.items():
        assert value.dtype == torch.float32, key
        assert torch.isfinite(value).all(), key
        if key != "logit_scale":
            assert torch.equal(value, value.half().float()), key
    assert 1 < state_dict["logit_scale"].exp() <= 100.001


def test_rebuilt_token_rows_repeat(state_dict: dict[str, torch.Tensor]) -> None:
    again = load_tiny_state_dict()
    assert all(torch.equal(again[key], value) for key, value in state_dict.items())
    stored = torch.load(ASSET, weights_only=True)
    table, learned = state_dict["token_embedding.weight"], stored["meta.token_rows"].long()
    assert torch.equal(table[learned], stored["token_embedding.weight"].float())
    assert 49407 in learned and 49406 in learned  # end and start of text
    drawn = np.random.RandomState(stored["meta.rebuild_seed"]).standard_normal(table.shape)
    rebuilt = torch.ones(len(table), dtype=torch.bool)
    rebuilt[learned] = False
    expected = torch.from_numpy(0.02 * drawn).half().float()
    assert torch.equal(table[rebuilt], expected[rebuilt])


def test_words_of_prompts_are_learned() -> None:
    learned = set(torch.load(ASSET, weights_only=True)["meta.token_rows"].tolist())
    words = "a photo of the number handwritten bad itap origami video game art x . " + " ".join(
        DIGITS
    )
    assert set(clip.tokenize(words)[0].tolist()) - {0} <= learned


def test_builder_accepts_it_without_loss(
    model: torch.nn.Module, state_dict: dict[str, torch.Tensor]
) -> None:
    built = model.state_dict()
    assert all(torch.equal(built[key], value) for key, value in state_dict.items())


def test_loading_leaves_no_shared_state(state_dict: dict[str, torch.Tensor]) -> None:
    other = load_tiny_state_dict()
    other["ln_final.weight"].zero_()
    assert state_dict["ln_final.weight"].abs().sum() > 0


def test_missing_file_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(tiny_clip, "ASSET", tmp_path / "tiny_clip.pt")
    with pytest.raises(FileNotFoundError, match=r"tiny_clip\.pt is missing.*make_tiny_clip\.py"):
        load_tiny_state_dict()


def handwritten_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's digits as CLIP input (1797, 3, 32, 32), and their labels."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    grey = [Image.fromarray((d * 255 / 16).astype(np.uint8)) for d in digits.images]
    large = np.stack([np.asarray(g.resize((32, 32), Image.BICUBIC)) for g in grey])
    images = torch.from_numpy(large).float()[:, None] / 255
    return (images - CLIP_MEAN) / CLIP_STD, torch.from_numpy(digits.target)


@torch.no_grad()
def test_zero_shot_on_handwritten_digits(model: torch.nn.Module) -> None:
    images, labels = handwritten_digits()
    texts = model.encode_text(clip.tokenize([f"a photo of a {name}." for name in DIGITS]))
    texts = texts / texts.norm(dim=-1, keepdim=True)
    features = torch.cat([model.encode_image(part) for part in images.split(512)])
    found = (features @ texts.T).argmax(1)
    assert (found == labels).float().mean() > 0.6  # docs/tiny_clip.md has the measured value
