"""Whole runs of somebody else's trainers: base classes trained, new classes tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import ConfigError, load_checkpoint
from prompts.predictor import Predictor
from prompts.run import build, read_run
from sweep.plan.recipes import methods_for
from tests.porting.conftest import FEW, FILES, record
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


WITHOUT_A_MANAGER = """
    def build_data_loader(self):
        dm = DataManager(self.cfg)
        self.train_loader_x, self.test_loader = dm.train_loader_x, dm.test_loader
        self.train_loader_u, self.val_loader = None, None
        self.num_classes, self.lab2cname = dm.num_classes, dm.lab2cname
"""
MANAGER_OF_ITS_OWN = """
    def build_data_loader(self):
        inner, dm = DataManager(self.cfg), Manager.__new__(Manager)
        dm.dataset, dm._num_classes = inner.dataset, inner._num_classes
        dm._lab2cname = inner._lab2cname
        dm.train_loader_x, dm.test_loader = inner.train_loader_x, inner.test_loader
        self.train_loader_x, self.test_loader = dm.train_loader_x, dm.test_loader
        self.train_loader_u, self.val_loader = None, None
        self.num_classes, self.lab2cname, self.dm = dm.num_classes, dm.lab2cname, dm
"""
MANAGERS = {
    "none": ("", WITHOUT_A_MANAGER),
    "a subclass": ("class Manager(DataManager):\n    pass\n", MANAGER_OF_ITS_OWN),
    "another class": (
        "class Manager:\n    num_classes = property(lambda s: s._num_classes)\n"
        "    lab2cname = property(lambda s: s._lab2cname)\n",
        MANAGER_OF_ITS_OWN,
    ),
}


@pytest.mark.parametrize("kind", MANAGERS)
def test_a_data_manager_of_its_own(foreign, digits: Path, tmp_path: Path, kind: str):
    manager, method = MANAGERS[kind]
    head = (FILES / "mini_head.py").read_text("utf-8")
    cls = "@TRAINER_REGISTRY.register()\nclass MiniHead(TrainerX):\n"
    assert cls in head
    text = head.replace(cls, f"from dassl.data import DataManager\n{manager}\n{cls}{method}\n")
    foreign("changed", changed=text)
    common = {"trainer": "MiniHead", "dataset": "digits", "recipe": "tiny"}
    assert run(digits, tmp_path / "base", *FEW, epoch=1, **common) > 0
    flags = {"eval_only": True, "model_dir": str(tmp_path / "base"), "load_epoch": 1}
    assert run(digits, tmp_path / "again", *FEW, **flags, **common) > 0
    assert record(tmp_path / "again")["correct"] == record(tmp_path / "base")["correct"]


OWN_TEST = """
    def test(self, split=None):
        self.set_model_mode("eval")
        return 12.5

    def load_model(self, directory, cfg, epoch=None):
        assert cfg is self.cfg
        super().load_model(directory, epoch)

    def model_inference(self, image):
        return self.model(image), None
"""


def test_an_evaluation_of_its_own(foreign, digits: Path, tmp_path: Path):
    """Its number is passed on; where a record or scores are needed, a sentence says why not."""
    text = (FILES / "mini_head.py").read_text("utf-8") + OWN_TEST
    foreign("changed", changed=text)
    common = {"trainer": "MiniHead", "dataset": "digits", "recipe": "tiny"}
    out = tmp_path / "base"
    assert run(digits, out, *FEW, epoch=1, **common) == 12.5
    flags = {"eval_only": True, "model_dir": str(out), "load_epoch": 1}
    assert run(digits, tmp_path / "again", *FEW, **flags, **common) == 12.5
    with pytest.raises(
        ConfigError, match=r"changed.py has a `test` of its own, which writes no re"
    ):
        methods_for(["MiniHead"], embedded=True)
    predictor = Predictor.load(out)
    with pytest.raises(ConfigError, match="model_inference of MiniHead returns a tuple"):
        list(predictor.scores(Image.new("RGB", (32, 32))))


def test_our_loader_of_clip(foreign, digits: Path, tmp_path: Path):
    """It brings the embedded CLIP, in ViT-B/16's widths where the file fixes those."""
    head = (FILES / "mini_head.py").read_text("utf-8")
    line = "        cfg = self.cfg\n"
    for width in (64, 512):
        size = "load_clip_to_cpu(cfg).text_projection.shape[1]"
        text = head.replace(line, f"{line}        assert {size} == {width}\n")
        text = (
            f"from trainers.coop import load_clip_to_cpu\n{text.replace('MiniHead', f'M{width}')}"
        )
        foreign(f"with_{width}", **{f"with_{width}": text})
        common = {"trainer": f"M{width}", "dataset": "digits", "recipe": "tiny"}
        assert run(digits, tmp_path / str(width), *FEW, epoch=1, **common) > 0


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
