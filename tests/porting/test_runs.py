"""Whole runs of somebody else's trainers: base classes trained, new classes tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import load_checkpoint
from prompts.run import build, read_run
from tests.porting.conftest import FEW, record
from tests.runs import run

TRAINERS = {  # file, class → folder of its checkpoints, what it learns
    ("mini_head", "MiniHead"): ("head", {"1.weight", "1.bias"}),
    ("mini_coop", "MiniCoOp"): ("prompt_learner", {"ctx"}),
    ("mini_towers", "MiniVPT"): (
        "VLPromptLearner",
        {"image_encoder.VPT", "image_encoder.transformer.resblocks.1.VPT_shallow"},
    ),
    ("mini_towers", "MiniIVLP"): (
        "VLPromptLearner",
        {
            *("prompt_learner.ctx", "text_encoder.transformer.resblocks.1.VPT_shallow"),
            *("image_encoder.VPT", "image_encoder.transformer.resblocks.1.VPT_shallow"),
        },
    ),
    ("mini_wide", "MiniWide"): (
        "prompt_learner",
        {
            *("ctx", "deep.0"),
            *(f"couplings.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")),
        },
    ),
    ("mini_maple", "MiniMaPLe"): (
        "MultiModalPromptLearner",
        {
            *("prompt_learner.ctx", "prompt_learner.deep_text.0"),
            *(f"prompt_learner.couplings.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")),
        },
    ),
}


SLOW = ("MiniWide",)  # of full width
WHERE = [
    "CPU",
    pytest.param("GPU", marks=pytest.mark.gpu),
    pytest.param("beside a GPU", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(
    ("file", "name"),
    [pytest.param(*it, id=it[1], marks=[pytest.mark.slow] * (it[1] in SLOW)) for it in TRAINERS],
)
@pytest.mark.parametrize("where", WHERE)
def test_base_to_new(foreign, digits: Path, tmp_path: Path, file: str, name: str, where: str):
    foreign(file)
    if where == "beside a GPU":
        torch.zeros(1, device="cuda")  # it is there, and stays unused
    common = {"trainer": name, "dataset": "digits", "recipe": "tiny"}
    out, again = tmp_path / "base", tmp_path / "new"
    few = (*FEW, "USE_CUDA", str(where == "GPU"))
    opts = (*few, "OPTIM.LR", "0.5", "TRAIN.CHECKPOINT_FREQ", "1", "OPTIM.WARMUP_EPOCH", "-1")
    run(digits, out, *opts, epoch=2, **common)
    folder, learned = TRAINERS[file, name]
    first, second = (
        load_checkpoint(str(out / folder / f"model.pth.tar-{epoch}"))["state_dict"]
        for epoch in (1, 2)
    )
    changed = {key for key in first if not torch.equal(first[key], second[key])}
    assert changed == learned
    run(digits, again, *few, eval_only=True, model_dir=str(out), load_epoch=2,
        **{**common, "subsample_classes": "new"})  # fmt: skip
    base, new = record(out), record(again)
    assert (base["classes"], new["classes"]) == ("base", "new")
    assert base["trainer"] == new["trainer"] == name and new["total"] > 0
    assert base["backbone"] == new["backbone"] == ("tiny-512" if name == "MiniWide" else "tiny")
    assert TRAINER_REGISTRY.get(name).__module__ == f"trainers.{file}"
    if name in SLOW:  # it takes a GPU for granted there, too
        trainer = build(read_run(out), ["three", "eight"])
        images = torch.zeros(1, 3, 32, 32, device=trainer.device)
        assert trainer.model_inference(images).shape == (1, 2)


def test_parts_of_its_own(foreign, digits: Path, tmp_path: Path):
    foreign("mini_teacher")
    common = {"trainer": "MiniTeacher", "dataset": "digits", "recipe": "tiny"}
    opts = ("TEST.EVALUATOR", "MiniEvaluator", "OPTIM.WARMUP_EPOCH", "-1")
    run(digits, tmp_path / "base", *FEW, *opts, epoch=2, **common)
    found = record(tmp_path / "base")
    assert found["metrics"]["wrong"] == found["total"] - found["correct"]
    student, teacher = (
        load_checkpoint(str(tmp_path / f"base/{name}/model.pth.tar-2"))["state_dict"]
        for name in ("student", "teacher")
    )
    assert not torch.equal(student["1.weight"], teacher["1.weight"])


def test_loops_of_its_own(foreign, digits: Path, tmp_path: Path, capsys):
    foreign("mini_loops")
    common = {"trainer": "MiniLoops", "dataset": "digits", "recipe": "tiny"}
    run(digits, tmp_path / "base", *FEW, epoch=2, **common)
    run(digits, tmp_path / "new", *FEW, eval_only=True, model_dir=str(tmp_path / "base"),
        **{**common, "subsample_classes": "new"})  # fmt: skip
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("found")]
    assert [line.split(" on ")[1] for line in said] == ["val", "test", "test"]
    state = load_checkpoint(str(tmp_path / "base/head/model.pth.tar-2"))
    assert state["epoch"] == 2 and state["val_result"] >= 0
