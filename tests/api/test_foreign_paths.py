"""Import paths that other people's files use keep working, whatever moves behind them."""

import importlib

import pytest

PATHS = {
    "trainers.coop": ("load_clip_to_cpu", "TextEncoder", "PromptLearner", "CustomCLIP", "CoOp"),
    "trainers.cocoop": ("load_clip_to_cpu", "TextEncoder", "PromptLearner", "CustomCLIP", "CoCoOp"),
    "trainers.zsclip": ("ZeroshotCLIP", "ZeroshotCLIP2"),
    "trainers.imagenet_templates": ("IMAGENET_TEMPLATES", "IMAGENET_TEMPLATES_SELECT"),
    "datasets.oxford_pets": ("OxfordPets",),
    "datasets.imagenet": ("ImageNet",),
    "datasets.caltech101": ("Caltech101",),
    "datasets.dtd": ("DescribableTextures",),
}
HELPERS = (
    *("read_split", "save_split", "subsample_classes", "read_and_split_data", "split_trainval"),
    "generate_fewshot_dataset",
)


@pytest.mark.parametrize("module", PATHS)
def test_names(module: str):
    loaded = importlib.import_module(module)
    for name in PATHS[module]:
        assert hasattr(loaded, name), f"from {module} import {name}"


def test_helpers_of_the_pets():
    """Dataset files of others call these on the class that was written first."""
    from datasets.oxford_pets import OxfordPets

    for name in HELPERS:
        assert callable(getattr(OxfordPets, name))
