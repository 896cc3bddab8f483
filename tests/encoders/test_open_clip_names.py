"""Which names of open_clip's can be used, and what is said of the others; no weights needed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys

import pytest
import torch

import encoders
from dassl.utils import CheckpointError, ConfigError, UnknownNameError
from dassl.utils.download import DownloadError
from encoders import open_clip
from encoders.open_clip import CONFIG, Source, parsed, problems_of, refusal
from encoders.openai import read_weights
from encoders.shared import load_frozen_clip
from features.keys import space_of
from tests.open_clip_models import TEXT, VIT, build, model_folder, needs_open_clip
from tests.runs import ROOT

PLAIN = {"embed_dim": 8, "vision_cfg": {"layers": 2}, "text_cfg": {"context_length": 77}}


# --- without the package --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("open_clip:ViT-B-32", Source("ViT-B-32")),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", Source("ViT-B-32", "laion2b_s34b_b79k")),
        ("open_clip:local-dir:/a/b", Source("local-dir:/a/b")),
        ("ViT-B/32", "ViT-B/32"),
    ],
)
def test_names_are_read(text, want):
    assert parsed(text) == want
    assert str(want) == text


def test_what_reads_openai_s_files_says_that_it_does():
    with pytest.raises(UnknownNameError, match="open_clip:ViT-B-32 is none of OpenAI's"):
        read_weights(Source("ViT-B-32"))


def test_without_the_package_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    problems = problems_of(Source("ViT-B-32", "openai"))
    assert len(problems) == 1 and 'pip install "open_clip_torch>=3.3,<4"' in problems[0]
    with pytest.raises(ConfigError, match="pip install"):
        encoders.load("open_clip:ViT-B-32/openai")


@pytest.mark.parametrize("version", ["2.32.0", "3.0.0", "4.3.1"])
def test_another_version_is_refused(monkeypatch, version):
    fake = type(sys)("open_clip")
    fake.__version__ = version
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    assert f"open_clip is {version}; expected 3.3 or a newer 3.x" in problems_of(Source("a"))[0]


@pytest.mark.parametrize(
    ("text", "more", "reason"),
    [
        ({"hf_model_name": "roberta-base"}, {}, "roberta-base, of Hugging Face"),
        ({"no_causal_mask": True}, {}, "not causal"),
        ({"pool_type": "last"}, {}, "its last position's"),
        ({"embed_cls": True}, {"multimodal_cfg": {}}, "class token of its own"),
        ({}, {"init_logit_bias": -10}, "bias"),
        ({"proj_bias": True}, {}, "proj_bias True"),
        ({"proj_type": "none"}, {}, "proj_type none"),
        ({"ls_init_value": 1e-4}, {}, "ls_init_value 0.0001"),
        ({"act_kwargs": {"approximate": "tanh"}}, {}, "approximate"),
        ({"something_new": 1}, {}, "something_new 1"),
        ({}, {"vision_cfg": {"image_size": [224, 336]}}, "not square"),
        ({}, {"vision_cfg": {"output_tokens": True}}, "tokens beside features"),
    ],
)
def test_other_towers_are_refused_with_the_reason(text, more, reason):
    assert not refusal(PLAIN)
    config = PLAIN | {"text_cfg": PLAIN["text_cfg"] | text} | more
    assert len(refusal(config)) == 1 and reason in refusal(config)[0]


def test_settings_that_change_nothing_are_no_reason():
    neutral = {"no_causal_mask": False, "proj_type": "linear", "proj_bias": False, "eos_id": 2}
    assert not refusal(PLAIN | {"text_cfg": neutral | {"pool_type": "eos", "output_tokens": False}})


# --- with the package -----------------------------------------------------------------------------

FAMILIES_USED = (
    "ViT-B",
    "ViT-L",
    "ViT-H",
    "ViT-g-",
    "ViT-bigG",
    "RN",
    "convnext",
    "EVA",
    "ViTamin",
)
FAMILIES_REFUSED = ("SigLIP", "CLIPA", "coca", "roberta", "mt5", "nllb", "MobileCLIP-S")


@needs_open_clip
def test_every_family_is_used_or_refused():
    package = open_clip.package()
    used = {name for name in package.list_models() if not refusal(package.get_model_config(name))}
    for name in package.list_models():
        if any(family in name for family in FAMILIES_REFUSED):
            assert name not in used, name
        elif name.startswith((*FAMILIES_USED, "PE-Core")) or name.endswith("CLIP-B"):
            assert name in used, name
    tags = [name for name, _ in package.list_pretrained() if name in used]
    assert len(tags) >= 140


@needs_open_clip
def test_the_page_lists_what_open_clip_has():
    page = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")
    version = open_clip.package().__version__
    if f"open_clip {version} lists" not in page:
        pytest.skip(f"the page is of another open_clip: {version} is installed")
    spec = importlib.util.spec_from_file_location("lister", ROOT / "scripts/list_backbones.py")
    lister = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lister)
    assert lister.tables() in page, "run python scripts/list_backbones.py"


@needs_open_clip
def test_weights_under_the_wrong_activation_are_refused_with_the_right_name():
    found = 0
    for name, tag in open_clip.package().list_pretrained():
        problems = problems_of(Source(name, tag))
        if problems and "trained with" in problems[0]:
            found += 1
            told = problems[0].rpartition("set it to ")[2].rstrip(".")
            assert problems_of(parsed(told)) == [], told
    assert found > 10
    assert problems_of(Source("ViT-B-32-quickgelu", "openai")) == []


@needs_open_clip
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-B-23/openai", "knows no 'ViT-B-23'.*Did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32", "names no weights: write open_clip:ViT-B-32/TAG with one of openai"),
        ("open_clip:ViT-S-16", "names no weights: set MODEL.BACKBONE.PATH"),
        ("open_clip:ViT-B-32/laion2b_s34b_b97k", "Did you mean 'laion2b_s34b_b79k'"),
        ("open_clip:hf-hub:timm/some_model", "write open_clip:local-dir:FOLDER"),
        ("open_clip:local-dir:/no/such/folder", "holds no model of open_clip's"),
        ("open_clip:ViT-B-16-SigLIP/webli", "cannot be trained for: .*not causal.*backbones.md"),
    ],
)
def test_names_that_stand_for_nothing(name, said):
    with pytest.raises(ConfigError, match=said):
        encoders.load(name)


@needs_open_clip
def test_a_file_that_is_not_there():
    source = Source("ViT-B-32", file="/no/such/file.bin")
    assert problems_of(source) == ["MODEL.BACKBONE.PATH: file /no/such/file.bin does not exist."]


@needs_open_clip
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {}}'])
def test_a_folder_with_another_description(tmp_path, content):
    (tmp_path / CONFIG).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no model of open_clip's"):
        encoders.load(f"open_clip:local-dir:{tmp_path}")


@needs_open_clip
def test_a_folder_without_weights(tmp_path):
    name = model_folder(tmp_path)
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(ConfigError, match=r"holds no weights; expected open_clip_model\.s"):
        encoders.load(name)


@needs_open_clip
@pytest.mark.parametrize(
    "state",
    [
        {"logit_scale": torch.ones(())},
        {"conv1.weight": torch.ones(3)},
        [1, 2],
        "no weights",
        "not finite",
    ],
    ids=str,
)
def test_weights_of_something_else(tmp_path, state):
    name, file = model_folder(tmp_path), tmp_path / "weights.bin"
    if state == "not finite":
        state = build(open_clip.model_config(parsed(name))).state_dict()
        state["visual.proj"][0, 0] = float("nan")
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=r"weights\.bin"):
        encoders.load(Source(parsed(name).name, file=str(file)))


@needs_open_clip
def test_weights_that_cannot_be_fetched(monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(open_clip.package(), "download_pretrained", offline)
    with pytest.raises(DownloadError, match=r"laion/CLIP-ViT-B-32.*MODEL\.BACKBONE\.PATH"):
        encoders.load("open_clip:ViT-B-32/laion2b_s34b_b79k")


@needs_open_clip
def test_a_tag_s_weights_are_taken_from_where_open_clip_puts_them(tmp_path, monkeypatch):
    """A small architecture under a real name, so that nothing is fetched."""
    file = tmp_path / "open_clip_model.safetensors"
    model_folder(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    importlib.import_module("safetensors.torch").save_file(build(config).state_dict(), file)
    monkeypatch.setattr(open_clip.package(), "get_model_config", lambda _: dict(config))
    monkeypatch.setattr(open_clip.package(), "download_pretrained", lambda _: str(file))
    towers = encoders.load("open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert open_clip.weights_file(Source("ViT-B-32", "laion2b_s34b_b79k")) == file
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = build(config).encode_image(images)
    assert torch.allclose(towers.image(images), want, atol=1e-5)


@needs_open_clip
def test_how_images_were_prepared_is_known():
    wanted = open_clip.preprocessing(Source("PE-Core-B-16", "meta"))
    assert wanted["size"] == 224 and wanted["mean"] == wanted["std"] == (0.5, 0.5, 0.5)
    assert (wanted["interpolation"], wanted["resize_mode"]) == ("bilinear", "squash")
    assert open_clip.preprocessing(Source("ViT-B-16-plus-240", file="x")) == {"size": 240}


@pytest.mark.slow
@needs_open_clip
def test_one_file_read_in_two_ways_is_two_models(tmp_path):
    """Heads and activation do not show in weights: features that are stored, and a shared CLIP."""
    plain = model_folder(tmp_path / "plain")
    file = tmp_path / "plain/open_clip_pytorch_model.bin"
    others = {"quick_gelu": True}, {"vision": VIT | {"head_width": 48}}
    device, spaces = torch.device("cpu"), set()
    for i, more in enumerate([{}, *others]):
        name = parsed(model_folder(tmp_path / str(i), **more) if more else plain).name
        source = Source(name, file=str(file))
        first = load_frozen_clip(source, "fp32", device)
        assert load_frozen_clip(source, "fp32", device) is first
        spaces.add(space_of(first.visual, "fp32", device))
    assert len(spaces) == 3


@needs_open_clip
def test_loading_leaves_the_root_logger_alone(tmp_path):
    import logging

    before = list(logging.getLogger().handlers)
    logging.getLogger().handlers.clear()
    try:
        encoders.load(model_folder(tmp_path))
        assert not logging.getLogger().handlers
    finally:
        logging.getLogger().handlers[:] = before


@needs_open_clip
def test_a_tokenizer_with_an_end_token_of_its_own(tmp_path):
    """As MetaCLIP 2's: start <s>, end </s>, which is not the largest id."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "a",
        "photo",
        "of",
        "cat",
        "snow",
        "leopard",
        ".",
        "X",
    ]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **marks)
    fast.save_pretrained(tmp_path)
    own = {"hf_tokenizer_name": "x", "pool_type": "eos", "eos_id": 2, "vocab_size": len(words)}
    name = model_folder(tmp_path, text=TEXT | own)
    towers = encoders.load(name)
    texts = ["a photo of a cat.", "a snow leopard"]
    tokens = towers.tokenizer(texts)
    assert tokens[0, :8].tolist() == [0, 4, 5, 6, 4, 7, 10, 2]
    model = build(open_clip.model_config(parsed(name)))
    theirs = open_clip.package().get_tokenizer(name.removeprefix("open_clip:"))
    assert theirs(texts).equal(tokens)
    with torch.no_grad():
        want = model.encode_text(tokens)
        plain = towers.model.encode_text(tokens)
    assert torch.allclose(towers.text.encode_tokens(tokens), want, atol=1e-5)
    assert torch.allclose(plain, want, atol=1e-5)
    with pytest.raises(ConfigError, match="78 tokens, but CLIP reads 77"):
        towers.tokenizer(["a " * 76])
