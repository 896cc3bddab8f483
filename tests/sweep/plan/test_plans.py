"""Plans hold exactly the runs that the papers' tables need, with the papers' recipes."""

import csv
import shlex
from collections import Counter
from pathlib import Path

import pytest

import train
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import ConfigError, UnknownNameError
from sweep.plan.recipes import GROUPS, PAPER_NAMES
from sweep.plan.request import OF_THE_PLAN, Request, dataset_names
from sweep.plan.run import ROOT, Run, evaluation_of, settings_but_seed
from sweep.plan.tables import TABLES

OUT = Path("out")
CONFIGS = ROOT / "configs"

N_FAMILY = sum(method.learns for method in GROUPS["family"])
# Name → runs. n trainings are each tested on their own classes; 3 seeds, zero-shot once.
COUNTS = {
    "cocoop-1": 11 * 2 + 2 * 11 * 3 * 2,  # CLIP on two halves; CoOp, CoCoOp: train, test on new
    "family": 11 * 2 + N_FAMILY * 11 * 3 * 2,
    "cocoop-2": 2 * 3 * (1 + 10),  # CoOp and CoCoOp: one training, ten targets
    "cocoop-3": 5 + 2 * 3 * (1 + 4),
    "cocoop-capacity": 3 * 11 * 3 * 2,
    "coop-1": 4 * (5 + 3 * 3 * (1 + 4)),  # four backbones: CLIP; probe, M=16, M=4
    "coop-2": 4 * (1 + 1 + 3),
    "coop-3": 2 * 11 * 3,
    "coop-5": 1 + 6 * 3,  # star; probe, four ways of fine-tuning, CoOp
    "coop-length": 6 * 11 * 3,
    "coop-words": 5,
    "coop-fig3": 11 + 5 * 5 * 11 * 3,  # star; probe and four CoOps at five numbers of shots
    "base2new": 11 * 3 + 2 * 11 * 3 * 3,  # also tested on all classes
    "fewshot": 11 + 2 * 5 * 11 * 3,
    "crossdataset": 2 * 3 * (1 + 10),
    "domain": 5 + 2 * 3 * (1 + 4),
    "demo": 3 + 2 * 3 * 3,  # CLIP three times; trained on base, tested on new, trained on all
}


@pytest.mark.parametrize("name", TABLES)
def test_number_of_runs(name: str):
    runs = Request(name).runs()
    assert len(runs) == len(set(runs)) == COUNTS[name]
    assert len({run.folder(OUT) for run in runs}) == len(runs), "every run has its own folder"
    seen = set()
    for run in runs:
        assert run.source is None or run.source in seen, "a training comes before its evaluations"
        seen.add(run)


def test_tables_that_share_runs_share_them():
    shared = set(Request("cocoop-2").runs()) & set(Request("cocoop-3").runs())
    assert len(shared) == 2 * 3, "the trainings on ImageNet"
    assert set(Request("cocoop-1").runs()) < set(Request("base2new").runs())


def recipe(what: str, **wanted: object) -> Run:
    runs = [
        run
        for run in Request(what).runs()
        if all(getattr(run, key) == value for key, value in wanted.items())
    ]
    return runs[0]


def hyperparameters() -> dict[tuple[str, str], str]:
    path = ROOT / "sweep/paper/hyperparameters.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["setting"], row["parameter"]): row["value"] for row in csv.DictReader(file)}


def test_recipes_of_the_papers():
    facts = hyperparameters()
    for shots in (1, 2, 4, 8, 16):
        run = recipe("coop-fig3", trainer="CoOp", dataset="dtd", shots=shots)
        assert run.epochs == int(facts[f"coop_few_shot_{shots}", "max_epoch"])
    epochs = int(facts["coop_few_shot_imagenet", "max_epoch"])
    assert recipe("coop-fig3", trainer="CoOp", dataset="imagenet", shots=16).epochs == epochs
    base = recipe("cocoop-1", trainer="CoOp", dataset="dtd")
    assert base.recipe == f"CoOp/{facts['coop_in_base_to_new', 'config']}"
    imagenet = recipe("cocoop-1", trainer="CoOp", dataset="imagenet")
    assert imagenet.recipe == f"CoOp/{facts['coop_in_base_to_new_imagenet', 'config']}"
    cocoop = recipe("cocoop-2", trainer="CoCoOp", dataset="dtd")
    assert cocoop.recipe == f"CoCoOp/{facts['cocoop_cross_dataset', 'config']}"
    assert cocoop.epoch == int(facts["cocoop_cross_dataset", "load_epoch"])
    assert cocoop.source.shots == int(facts["cocoop_cross_dataset", "shots"])
    coop = recipe("coop-1", trainer="CoOp", dataset="imagenet_a")
    assert coop.epoch == int(facts["coop_robustness_eval", "load_epoch"])


def test_a_trainer_that_the_papers_do_not_have(monkeypatch):
    """On the digits there is a recipe for all; elsewhere one has to be named."""
    monkeypatch.setitem(TRAINER_REGISTRY._obj_map, "Theirs", TRAINER_REGISTRY.get("CoOp"))
    request = Request("base2new", ("Theirs",), ("digits",))
    assert {run.recipe for run in request.runs()} == {"tiny"}
    with pytest.raises(ConfigError, match="no recipe for Theirs: add --recipe"):
        Request("base2new", ("Theirs",), ("digits", "dtd")).runs()


@pytest.mark.slow
def test_every_recipe_is_a_file_of_upstream_and_merges():
    for name in TABLES:
        for run in Request(name).runs():
            assert (CONFIGS / "trainers" / f"{run.recipe}.yaml").is_file()
            assert (CONFIGS / "datasets" / f"{run.dataset}.yaml").is_file()
            assert len(run.digest) == 64
    assert set(PAPER_NAMES) < set(dataset_names())


def test_a_changed_setting_is_another_run_and_the_seed_is_not():
    run = Run("CoOp", "digits", "CoOp/tiny", 16, "base", 1)
    same = [Run("CoOp", "digits", "CoOp/tiny", 16, "base", seed).digest for seed in (1, 2)]
    assert same[0] == same[1] == run.digest
    other = Run("CoOp", "digits", "CoOp/tiny", 16, "base", 1, ("OPTIM.LR", "0.01"))
    assert other.digest != run.digest
    assert other.folder(OUT) != run.folder(OUT)
    tests = [evaluation_of(r, classes="new") for r in (run, other)]
    assert tests[0].digest != tests[1].digest, "an evaluation depends on what it evaluates"
    assert tests[0].digest != evaluation_of(run, classes="new", epoch=3).digest


def test_other_methods_settings_are_a_part_of_a_run_where_somebody_changed_them():
    """A method's file that comes or goes changes no run; a trainer may read what another declares,
    as other people's trainers read TRAINER.COOP."""
    cfg = train.setup_cfg(Run("CoOp", "digits", "CoOp/tiny", 16).arguments(Path(), ""))
    settings = settings_but_seed(cfg)
    assert settings["TRAINER"].keys() == {"NAME", "COOP"}
    del cfg.TRAINER["KGCOOP"]
    assert settings_but_seed(cfg) == settings
    digests = {
        Run("CoOp", "digits", "CoOp/tiny", 16, opts=opts).digest
        for opts in ((), ("TRAINER.COCOOP.N_CTX", "16"), ("TRAINER.COCOOP.N_CTX", "7"))
    }
    assert len(digests) == 2


def test_runs_survive_json():
    for run in Request("cocoop-3").runs():
        assert Run.from_dict(run.as_dict()) == run


def test_requests_survive_the_disk_and_the_command_line(tmp_path: Path):
    from sweep.cli import build_parser
    from sweep.plan.arguments import request_of

    request = Request(
        "fewshot",
        trainers=("CoOp",),
        datasets=("digits",),
        seeds=(1, 5),
        shots=(2, 4),
        contexts=(4,),
        csc=(True, False),
        opts=("OPTIM.MAX_EPOCH", "3", "TRAINER.COOP.CTX_INIT", ""),
    )
    assert Request.load(request.save(tmp_path)) == request
    line = request.flags().replace("''", " ").split(" ")
    args = build_parser().parse_args(["run", *[word for word in line if word]])
    assert request_of(args, args.what).opts[:2] == request.opts[:2]
    assert request_of(args, args.what).csc == request.csc


def backbones_of(**fields: object) -> set[str]:
    request = Request(**{"what": "base2new", "seeds": (1,), "datasets": ("digits",), **fields})
    names = {run.settings["MODEL"]["BACKBONE"]["NAME"] for run in request.runs()}
    assert names == {cell.backbone for cell in request.cells()} or not fields
    return names


@pytest.mark.parametrize("recipe", ["", "CoOp/vit_b16_ctxv1", "CoOp/tiny"])
@pytest.mark.parametrize("datasets", [("digits",), ("dtd",), ("digits", "dtd")])
def test_a_backbone_that_is_asked_for_holds(recipe: str, datasets: tuple):
    """With a recipe of one's own, and for the digits, whose recipes are for the embedded CLIP."""
    given = {"trainers": ("CoOp",), "recipe": recipe, "datasets": datasets}
    assert backbones_of(**given, backbone="RN50") == {"RN50"}
    assert backbones_of(**given, backbone="RN50", what="coop-2") == {"RN50"}


def test_a_recipe_of_ones_own_has_its_backbone():
    assert backbones_of() == {"tiny"}, "the digits"
    assert backbones_of(recipe="CoOp/rn50", trainers=("CoOp",)) == {"RN50"}
    four = {"trainers": ("CoOp",), "what": "coop-2", "recipe": "CoOp/vit_b32"}
    assert backbones_of(**four) == {"ViT-B/32"}, "no four columns of one backbone's numbers"
    assert backbones_of(**four, opts=("MODEL.BACKBONE.NAME", "RN101")) == {"RN101"}


def test_few_shot_contexts_cross():
    request = Request("fewshot", ("CoOp",), ("dtd",), (1,), (1,), (4, 16), ("end", "middle"))
    runs = request.runs()
    assert len(runs) == 4
    assert Counter(run.recipe for run in runs) == {"CoOp/rn50_ep50": 4}


def test_linear_probe_stays_on_the_classes_it_knows():
    runs = Request("base2new", ("all",), ("digits",), (1,)).runs()
    counts = Counter((run.trainer, run.classes) for run in runs)
    assert counts["LinearProbe", "base"] == 1
    assert "LinearProbe" not in {run.trainer for run in runs if run.classes != "base"}
    assert len(runs) == 2 * 3 + 1 + 2 * 3


def test_new_classes_per_epoch():
    request = Request("base2new", ("CoCoOp",), ("digits",), (1,), per_epoch=True)
    epochs = [run.epoch for run in request.runs() if run.classes == "new"]
    assert sorted(epochs) == list(range(1, 21))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"what": "base2now"}, "Did you mean 'base2new'"),
        ({"what": "cocoop-4"}, "Did you mean 'cocoop-"),
        ({"trainers": ("CoCop",)}, "Did you mean 'CoCoOp'"),
        ({"datasets": ("oxford_pet",)}, "Did you mean 'oxford_pets'"),
        ({"seeds": (-1,)}, "--seeds -1: expected whole numbers from 0"),
        ({"seeds": (1, 1)}, "one is given twice"),
        ({"shots": (0,)}, "--shots 0: expected images per class"),
        ({"shots": (1, 2)}, "give one"),
        ({"contexts": (99,)}, "--ctx 99"),
        ({"positions": ("midle",)}, "Did you mean 'middle'"),
        ({"backbone": "RN51"}, "Did you mean 'RN50'"),
        ({"recipe": "CoOp/nope"}, "there is no configs/trainers/CoOp/nope.yaml"),
        ({"opts": ("OPTIM.LR",)}, "not KEY VALUE pairs"),
    ],
)
def test_bad_requests(fields: dict, message: str):
    with pytest.raises((ConfigError, UnknownNameError)) as error:
        Request(**{"what": "base2new", **fields}).runs()
    assert message in str(error.value)


@pytest.mark.parametrize("key", OF_THE_PLAN)
def test_what_the_plan_sets_is_no_option(key: str):
    with pytest.raises(ConfigError, match=rf"--opts {key}: .*; leave it out of --opts"):
        Request("base2new", ("CoOp",), ("digits",), opts=("OPTIM.LR", "0.1", key, "1")).runs()


def test_commands_can_be_typed_as_they_are_shown():
    request = Request(
        "fewshot",
        ("CoOp",),
        ("folder/my birds",),
        opts=("TRAINER.COOP.CTX_INIT", "this is a", "A", ""),
    )
    words = shlex.split(request.flags())
    assert words[-4:] == ["TRAINER.COOP.CTX_INIT", "this is a", "A", ""]
    assert "folder/my birds" in words
