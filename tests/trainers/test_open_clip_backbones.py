"""MODEL.BACKBONE.NAME open_clip:…: settings that go with it, and runs through the entry point."""

from __future__ import annotations

import sys

import pytest
import torch

from dassl.engine.identity import check_same_run, other_weights
from dassl.utils import CheckpointError, ConfigError
from encoders import open_clip
from tests.golden_recipes import make_cfg
from tests.open_clip_models import TEXT, model_folder, needs_open_clip
from tests.runs import log_lines, make_eurosat, run
from trainers.clip_trainer import (
    backbone_name,
    backbone_of,
    backbone_problems,
    load_clip,
    load_clip_to_cpu,
)

CONVNEXT = {"image_size": 32, "timm_model_name": "convnext_atto", "timm_pool": ""}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def cfg_of(name: str, path: str = "", **options: object):
    prepared = {
        "INPUT.SIZE": (224, 224),
        "INPUT.INTERPOLATION": "bicubic",
        "INPUT.PIXEL_MEAN": CLIP_MEAN,
        "INPUT.PIXEL_STD": CLIP_STD,
    }
    names = {"MODEL.BACKBONE.NAME": name, "MODEL.BACKBONE.PATH": path}
    return make_cfg("vit_a", {**prepared, **names, **options})


def test_a_missing_package_is_a_problem_of_the_configuration(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (problem,) = backbone_problems(cfg_of("open_clip:ViT-B-32/openai"))
    assert 'pip install "open_clip_torch>=3.3,<4"' in problem
    for load in (load_clip_to_cpu, lambda cfg: load_clip(cfg, "fp32")):
        with pytest.raises(ConfigError, match="pip install"):
            load(cfg_of("open_clip:ViT-B-32/openai"))


@pytest.mark.slow
@needs_open_clip
def test_name_and_file_belong_together(tmp_path):
    file = tmp_path / "weights.bin"
    file.touch()
    cfg = cfg_of("open_clip:ViT-B-32", str(file))
    assert backbone_problems(cfg) == []
    assert backbone_of(cfg) == open_clip.Source("ViT-B-32", file=str(file))
    assert backbone_name(cfg) == f"open_clip:ViT-B-32 ({file})"
    assert "does not exist" in backbone_problems(cfg_of("open_clip:ViT-B-32", "/no/file"))[0]


@needs_open_clip
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ViT-B-32/laion2b_s34b_b79k", ""),
        ("ViT-B-16-plus-240/laion400m_e32", 'add INPUT.SIZE "(240, 240)".'),
        (
            "ViT-L-14/laion2b_s32b_b82k",
            'add INPUT.PIXEL_MEAN "[0.5, 0.5, 0.5]" INPUT.PIXEL_STD "[0.5, 0.5, 0.5]".',
        ),
        (
            "MobileCLIP-B/datacompdr",
            'add INPUT.PIXEL_MEAN "[0.0, 0.0, 0.0]" INPUT.PIXEL_STD "[1.0, 1.0, 1.0]" '
            "INPUT.INTERPOLATION bilinear.",
        ),
    ],
)
def test_images_must_be_prepared_as_in_training(name, told):
    problems = backbone_problems(cfg_of(f"open_clip:{name}"))
    if not told:
        assert problems == []
        return
    assert len(problems) == 1 and problems[0].endswith(told), problems
    words = told.removeprefix("add ").removesuffix(".")
    keys = [word for word in words.split() if word.startswith("INPUT.")]
    cfg = cfg_of(f"open_clip:{name}")
    for key in keys:
        value = words.partition(key)[2].partition("INPUT.")[0].strip().strip('"')
        cfg.merge_from_list([key, value])
    assert backbone_problems(cfg) == [], "what is told helps"


@needs_open_clip
@pytest.mark.parametrize("key", ["ACTIVATION", "HEAD_WIDTH"])
def test_what_the_name_says_is_not_said_again(key):
    value = {"ACTIVATION": "quick_gelu", "HEAD_WIDTH": 64}[key]
    cfg = cfg_of("open_clip:ViT-B-32/datacomp_xl_s13b_b90k", **{f"MODEL.BACKBONE.{key}": value})
    assert "leave them out" in backbone_problems(cfg)[0]


@needs_open_clip
def test_other_peoples_files_get_no_other_tokenizer(tmp_path, monkeypatch):
    name = model_folder(tmp_path, text=TEXT | {"pool_type": "eos", "eos_id": 2})
    reader = open_clip.Tokenizer(lambda text: [], lambda ids: "", lambda *_: None, end=2)
    monkeypatch.setattr(open_clip, "tokenizer_for", lambda _: reader)
    cfg = cfg_of(name, **{"INPUT.SIZE": (32, 32)})
    load_clip(cfg, "fp32")
    with pytest.raises(ConfigError, match="has a tokenizer of its own"):
        load_clip_to_cpu(cfg)


def test_one_file_under_two_names_is_two_clips():
    """A file of open_clip's does not tell how it is read."""
    settings = {"MODEL.BACKBONE.NAME": "open_clip:a"}
    used = {"name": "CLIP open_clip:a", "sha256": "0" * 64, "read_as": "a"}
    then = {"settings": settings, "classnames": [], "data": {}, "weights": used}
    now = then | {"weights": used | {"read_as": "b"}}
    assert not other_weights(then, then | {"settings": {"MODEL.BACKBONE.NAME": "open_clip:c"}})
    assert len(other_weights(then, now)) == 1
    with pytest.raises(CheckpointError, match="the CLIP was"):
        check_same_run(then, now, "checkpoint")


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a folder with a small dataset and two small CLIPs."""
    root = tmp_path_factory.mktemp("open_clip")
    make_eurosat(root)
    model_folder(root / "vit")
    text = TEXT | {"context_length": 32}
    model_folder(root / "convnext", CONVNEXT, text, custom_text=True)
    return root


def trained(place, kind: str, trainer: str, **flags: object) -> tuple[float | None, list[str]]:
    output = place / f"{kind}-{trainer}"
    name = f"open_clip:local-dir:{place / kind}"
    shots = ("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1")
    recipe = {"LinearProbe": "CoOp", "ZeroshotCLIP": "CoOp"}.get(trainer, trainer)
    flags = {"trainer": trainer, "recipe": f"{recipe}/tiny", "backbone": name, **flags}
    return run(place, output, *shots, **flags), log_lines(output)


@needs_open_clip
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "convnext"])
@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp", "KgCoOp", "ProGrad", "ZeroshotCLIP"])
def test_methods_with_a_frozen_image_side_train(place, kind, trainer):
    accuracy, lines = trained(place, kind, trainer)
    assert accuracy is not None and 0 <= accuracy <= 100
    assert any(f"Loading CLIP (backbone: open_clip:local-dir:{place / kind})" in x for x in lines)


@needs_open_clip
@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["VPT", "IVLP", "MaPLe", "PromptSRC"])
def test_visual_prompts_need_a_plain_vision_transformer(place, trainer):
    accuracy, _ = trained(place, "vit", trainer)
    assert accuracy is not None
    with pytest.raises(ConfigError, match="open_clip's convnext_atto is none: choose a ViT"):
        trained(place, "convnext", trainer)


@needs_open_clip
@pytest.mark.slow
def test_a_run_is_evaluated_again_and_squashing_is_said(tmp_path):
    make_eurosat(tmp_path)
    squash = {"mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic"}
    model_folder(tmp_path / "vit", preprocess=squash | {"resize_mode": "squash"})
    accuracy, lines = trained(tmp_path, "vit", "CoOp")
    assert sum("squashed to squares" in line for line in lines) == 1
    (tmp_path / "vit-CoOp").rename(tmp_path / "before")
    flags = {"eval_only": True, "model_dir": str(tmp_path / "before"), "load_epoch": 1}
    again, _ = trained(tmp_path, "vit", "CoOp", **flags)
    assert again == accuracy
    model_folder(tmp_path / "vit", preprocess=squash, quick_gelu=True)  # another CLIP
    torch.save(
        torch.load(tmp_path / "vit/open_clip_pytorch_model.bin", weights_only=True)
        | {"logit_scale": torch.tensor(1.0)},
        tmp_path / "vit/open_clip_pytorch_model.bin",
    )
    with pytest.raises(CheckpointError, match="the CLIP was"):
        run(
            *(tmp_path, tmp_path / "other", "DATASET.NUM_SHOTS", "1"),
            **{**flags, "backbone": f"open_clip:local-dir:{tmp_path / 'vit'}"},
            recipe="CoOp/tiny",
        )
