"""Zero-shot CLIP, one template and several, against zeroshot.npz."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dassl.data.datasets import DATASET_REGISTRY
from encoders.tokens import tokenize
from tests.golden_recipes import (
    FORWARD,
    assert_close,
    comparable,
    fed_by,
    golden_clip,
    image_size,
    images,
    load_npz,
    make_cfg,
)
from trainers import zsclip
from trainers.imagenet_templates import IMAGENET_TEMPLATES_SELECT

ARRAYS, META = load_npz("zeroshot.npz")
TEMPLATES = META["custom_templates"]  # dataset → its own template


def build(case: dict[str, Any]) -> zsclip.ZeroshotCLIP:
    classnames = META["class_lists"][case["class_list"]]
    trainer_class = getattr(zsclip, case["trainer"])
    fed = fed_by(trainer_class, classnames, template=case["custom_template"])
    return fed(make_cfg(case["model"], {"DATASET.NAME": case["DATASET_NAME"]}))


def check(trainer: zsclip.ZeroshotCLIP, name: str) -> None:
    assert_close(trainer.text_features, ARRAYS[f"{name}/text_features"], FORWARD)
    model = META["cases"][name]["model"]
    with torch.no_grad():
        logits = trainer.model_inference(images(3, image_size(model), 700))
    assert_close(logits, ARRAYS[f"{name}/logits"], FORWARD)


@pytest.mark.parametrize("name", META["cases"])
def test_features_and_logits(name, capsys):
    case = META["cases"][name]
    trainer = build(case)
    lines = comparable(capsys.readouterr().out)
    assert lines[0] == "Loading CLIP (backbone: ViT-B/16)"
    assert [x for x in lines if x.startswith("Prompt")] == case["printed"]
    assert trainer.templates() == case["templates"]
    assert len(trainer.templates()) == case["n_templates"]
    check(trainer, name)


@pytest.mark.parametrize("name", [n for n in META["cases"] if n.startswith("vit_a")])
def test_building_twice_changes_nothing(name):
    """Upstream appends the dataset's template to a shared list, once more for each trainer."""
    build(META["cases"][name])
    check(build(META["cases"][name]), name)


@pytest.mark.parametrize("class_list", META["class_lists"])
def test_tokens(class_list):
    case = META["cases"][f"vit_a/{class_list}/ZeroshotCLIP"]
    names = META["class_lists"][class_list]
    prompts = [case["custom_template"].format(name.replace("_", " ")) for name in names]
    assert tokenize(prompts).tolist() == ARRAYS[f"tokenized/{class_list}"].tolist()


@pytest.mark.parametrize("model", ["vit_a", "vit_b", "rn_a"])
def test_image_features(model):
    with torch.no_grad():
        features = golden_clip(model).encode_image(images(3, image_size(model), 700))
    assert_close(features, ARRAYS[f"{model}/image_features"], FORWARD)


def test_templates():
    assert list(IMAGENET_TEMPLATES_SELECT) == META["selected_templates"]
    known = [name for name in DATASET_REGISTRY.registered_names() if name in TEMPLATES]
    assert "EuroSAT" in known
    assert {n: DATASET_REGISTRY.get(n).template for n in known} == {n: TEMPLATES[n] for n in known}
