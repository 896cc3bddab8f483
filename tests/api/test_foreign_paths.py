"""Import paths that other people's files use keep working, whatever moves behind them."""

import importlib

import pytest

PATHS = {
    "trainers.coop": ("load_clip_to_cpu", "TextEncoder", "PromptLearner", "CustomCLIP", "CoOp"),
    "trainers.cocoop": ("load_clip_to_cpu", "TextEncoder", "PromptLearner", "CustomCLIP", "CoCoOp"),
    "trainers.zsclip": ("ZeroshotCLIP", "ZeroshotCLIP2", "CUSTOM_TEMPLATES"),
    "trainers.imagenet_templates": ("IMAGENET_TEMPLATES", "IMAGENET_TEMPLATES_SELECT"),
    "datasets.oxford_pets": ("OxfordPets",),
    "datasets.imagenet": ("ImageNet",),
    "datasets.caltech101": ("Caltech101",),
    "datasets.dtd": ("DescribableTextures",),
    "dassl.engine.trainer": (
        *("SimpleTrainer", "SummaryWriter", "TrainerBase", "TrainerX", "TrainerXU"),
        *("AverageMeter", "DataManager", "MetricMeter", "build_evaluator", "mkdir_if_missing"),
        *("build_lr_scheduler", "build_optimizer", "count_num_param", "tolist_if_not"),
        *("load_checkpoint", "save_checkpoint", "load_pretrained_weights"),
        "resume_from_checkpoint",
    ),
    "dassl.modeling.ops": ("mixup", "sharpen_prob"),
    "dassl.modeling.ops.utils": (
        *("create_onehot", "ema_model_update", "linear_rampup", "reverse_index", "sharpen_prob"),
        "sigmoid_rampup",
    ),
    "dassl.optim": ("RAdam", "build_lr_scheduler", "build_optimizer"),
    "dassl.optim.radam": ("RAdam",),
    "dassl.utils.tools": (
        *("check_availability", "check_isfile", "collect_env_info", "download_url"),
        *("get_most_similar_str_to_a_from_b", "listdir_nohidden", "mkdir_if_missing"),
        *("read_image", "read_json", "set_random_seed", "tolist_if_not", "write_json"),
    ),
    "dassl.utils.torchtools": (
        *("count_num_param", "init_network_weights", "load_checkpoint", "load_pretrained_weights"),
        *("open_all_layers", "open_specified_layers", "resume_from_checkpoint", "save_checkpoint"),
    ),
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


def test_templates_may_be_added_to_by_one_file_alone():
    module = importlib.import_module("trainers.imagenet_templates")
    templates = module.IMAGENET_TEMPLATES_SELECT
    templates += ["a {} on a test bench."]
    assert (len(templates), len(module.IMAGENET_TEMPLATES_SELECT)) == (8, 7)


def test_templates_of_data_sets():
    import datasets
    from trainers.zsclip import CUSTOM_TEMPLATES

    assert CUSTOM_TEMPLATES["Digits"] == datasets.modules["digits"].Digits.template
    assert "EuroSAT" in CUSTOM_TEMPLATES and len(CUSTOM_TEMPLATES) == len(list(CUSTOM_TEMPLATES))
    assert "NoSuchSet" not in CUSTOM_TEMPLATES
