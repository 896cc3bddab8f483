"""What the record of an evaluation says: of the training whose weights it tested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dassl.engine import identity
from dassl.evaluation.error_analysis import FILES
from dassl.utils import load_checkpoint, save_checkpoint
from explore.runs import find_runs
from prompts import Predictor
from prompts.card import card
from tests.runs import make_eurosat, run

TRAINED = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "2")
ANALYSED = ("TEST.ERROR_ANALYSIS", "True")


def last(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    data = make_eurosat(tmp_path_factory.mktemp("data"))
    base = tmp_path_factory.mktemp("runs") / "base"
    run(data, base, *TRAINED)
    return SimpleNamespace(data=data, base=base)


def evaluate(made: SimpleNamespace, out: Path, *opts: str, **flags: Any) -> None:
    flags = {"eval_only": True, "model_dir": str(made.base), "load_epoch": 2, **flags}
    run(made.data, out, *opts, **flags)


@pytest.mark.parametrize(
    ("opts", "seed"), [((), 1), (("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "9"), 7)]
)
def test_shots_and_seed_are_those_of_the_training(made, tmp_path: Path, opts, seed, capsys):
    """Whatever the evaluation's own settings say, which it need not."""
    evaluate(made, tmp_path / "new", *opts, seed=seed, subsample_classes="new")
    found, before = last(tmp_path / "new"), last(made.base)
    for key in ("shots", "seed"):
        assert found[key] == before[key]
    assert found["data"]["few_shot"] == before["data"]["few_shot"]
    assert found["trained"]["OPTIM.MAX_EPOCH"] == 2 and "trained" not in before
    assert "15 test images, 2 shots" in capsys.readouterr().out
    both = find_runs([str(made.base), str(tmp_path / "new")])
    assert {(one.name, one.seed) for one in both} == {("CoOp", 1)}


def test_what_cannot_be_settings_is_none(made):
    then = {"settings": {"SEED": "x", "DATASET.NUM_SHOTS": None, "OPTIM.LR": 0.1, "OPTIM.NAME": {}}}
    assert identity.training_of(then) == {"OPTIM.LR": 0.1}
    for odd in ({"settings": [1]}, {}, None):
        assert identity.training_of(odd) == {}


def test_weights_of_another_program(made, tmp_path: Path, capsys):
    path = tmp_path / "theirs/prompt_learner"
    state = load_checkpoint(str(made.base / "prompt_learner/model.pth.tar-2"))
    del state[identity.KEY]
    save_checkpoint(state, str(path))
    evaluate(made, tmp_path / "out", model_dir=str(path.parent))
    assert "15 test images, weights of unknown origin" in capsys.readouterr().out
    assert last(tmp_path / "out")["data"]["few_shot"] is None


def test_an_analysis_goes_with_its_test(made, tmp_path: Path):
    """Pictures and tables of an earlier test do not stand beside another one's record."""
    evaluate(made, tmp_path, *ANALYSED, subsample_classes="new")
    assert all((tmp_path / name).is_file() for name in FILES)
    evaluate(made, tmp_path)
    assert not any((tmp_path / name).exists() for name in FILES)


@pytest.mark.parametrize("damage", [lambda lines: lines[:9], lambda lines: [*lines, lines[-1]]])
def test_predictions_of_another_test_are_passed_over(made, tmp_path: Path, damage, capsys):
    evaluate(made, tmp_path, *ANALYSED)
    (one,) = find_runs([str(tmp_path)])
    assert len(one.predictions) == 15
    path = tmp_path / FILES[0]
    path.write_text("".join(damage(path.read_text().splitlines(keepends=True))))
    (one,) = find_runs([str(tmp_path)])
    assert one.predictions is None
    assert "is passed over: it is of another test" in capsys.readouterr().out


def test_a_test_that_died_does_not_take_the_number_before_it(made, tmp_path: Path):
    """Its configuration is there, and the record is another method's."""
    out = tmp_path / "out"
    run(made.data, out, trainer="ZeroshotCLIP", eval_only=True)
    shutil.copytree(out, tmp_path / "died")
    run(made.data, tmp_path / "other", trainer="ZeroshotCLIP2", eval_only=True)
    for name in ("config.yaml", "model.json"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "died" / name)
    both = find_runs([str(out), str(tmp_path / "died")])
    assert [one.accuracy is None for one in both] == [False, True]
    assert "not tested" in card(Predictor.load(tmp_path / "died"), "classifier", out / "log.txt")


def test_a_card_says_whose_prompt_the_accuracy_is(made, tmp_path: Path):
    run(made.data, tmp_path, trainer="ZeroshotCLIP", eval_only=True)
    own = card(Predictor.load(tmp_path), "classifier", tmp_path / "log.txt")
    assert (
        "% of 15 test images" in own and "| prompt | `a centered satellite photo of {}.` |" in own
    )
    other = Predictor.load(tmp_path, template="zzz {} qqq")
    text = card(other, "classifier", tmp_path / "log.txt")
    assert "| accuracy | not tested with this prompt |" in text and "`zzz {} qqq`" in text


def test_class_specific_contexts_are_not_made_of_words(made, tmp_path: Path, capsys):
    run(made.data, tmp_path, *TRAINED, "TRAINER.COOP.CSC", "True")
    assert "Note: CTX_INIT wins over CSC: one context" in capsys.readouterr().out
    state = load_checkpoint(str(tmp_path / "prompt_learner/model.pth.tar-2"))["state_dict"]
    assert torch.equal(
        state["ctx"],
        load_checkpoint(str(made.base / "prompt_learner/model.pth.tar-2"))["state_dict"]["ctx"],
    )
