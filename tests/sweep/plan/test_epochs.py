"""Epochs of CoOp's recipes (section 4.1), also where the paper has no such number of shots."""

import pytest

from sweep.plan.recipes import BENCHMARK, COCOOP, COOP_WORDS, STANDARD, coop
from sweep.plan.run import Run


def epochs(method, backbone: str, dataset: str, shots: int) -> int:
    """Epochs that a run trains, by its configuration."""
    recipe, opts = method.recipe_for(backbone, dataset, shots)
    return Run(method.trainer, dataset, recipe, shots, "all", 1, opts).epochs


@pytest.mark.parametrize(
    ("method", "backbone"),
    [(COOP_WORDS, "ViT-B/16"), (coop(), "ViT-B/16"), (coop(), "RN101")],  # RN101: no file for 100
)
@pytest.mark.parametrize(
    ("shots", "expected"), [(1, 50), (2, 100), (4, 100), (8, 200), (16, 200), (17, 200), (32, 200)]
)
def test_more_shots_train_longer(method, backbone, shots, expected):
    assert epochs(method, backbone, "dtd", shots) == expected
    assert epochs(method, backbone, "imagenet", shots) == 50


@pytest.mark.parametrize(("shots", "expected"), [(1, 50), (2, 100), (16, 200)])
def test_plot_s_public_program_trains_as_long_as_coop_s(shots, expected):
    plot = STANDARD["PLOT"]
    for backbone in ("RN50", "ViT-B/16"):
        assert epochs(plot, backbone, "dtd", shots) == expected
        assert epochs(plot, backbone, "imagenet", shots) == 50


def test_tcp_s_public_program_trains_less_on_two_datasets():
    known = {name: epochs(STANDARD["TCP"], "ViT-B/16", name, 16) for name in BENCHMARK}
    assert {name for name, n in known.items() if n == 25} == {"imagenet", "sun397"}
    assert {n for name, n in known.items() if n != 25} == {50}


def test_32_shots_use_the_file_for_200_epochs():
    assert COOP_WORDS.recipe_for("ViT-B/16", "dtd", 32) == ("CoOp/vit_b16_ctxv1", ())


def test_a_recipe_without_epochs_in_its_name_keeps_its_own():
    assert {epochs(COCOOP, "ViT-B/16", "eurosat", shots) for shots in (1, 16, 32)} == {10}
