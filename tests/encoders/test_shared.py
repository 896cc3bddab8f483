"""One CLIP for all runs of a process: who gets it, who does not, and that no number tells."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dassl.config import Config
from dassl.utils import ConfigError
from dassl.utils.results import read_records
from encoders import shared as shared_clip
from encoders.image import ImageEncoder
from encoders.openai import CLIP
from encoders.text import TextEncoder
from sweep.plan.run import Run, evaluation_of
from sweep.work.execute import Job, execute
from tests.golden_recipes import fed_by, make_cfg, model_state_dict
from tests.runs import ROOT, make_eurosat, run
from trainers.clip_trainer import backbone_of, frozen_clip, load_clip, load_clip_to_cpu
from trainers.coop import CoOp
from trainers.zsclip import ZeroshotCLIP

CPU = torch.device("cpu")
RANDOM = ("TRAINER.COOP.CTX_INIT", "", "TRAINER.COOP.N_CTX", "4", "DATASET.NUM_SHOTS", "2")
# What is asked of one process, in this order: the context of CoOp is drawn at random.
RUNS: dict[str, dict[str, Any]] = {
    "coop1": {"seed": 1},
    "coop2": {"seed": 2},
    "coop1 again": {"seed": 1},
    "cocoop": {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"},
    "zero-shot": {"trainer": "ZeroshotCLIP"},
    "ensemble": {"trainer": "ZeroshotCLIP2"},
    "probe": {"trainer": "LinearProbe"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    shared_clip.forget()
    yield
    shared_clip.forget()


class Counts:
    """How often CLIP was loaded and folded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded = self.text = self.image = 0
        for owner, name, what in (
            (shared_clip, "load_model", "loaded"),
            (TextEncoder, "_fold", "text"),
            (ImageEncoder, "_fold", "image"),
        ):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name), what))

    def _counted(self, original: Callable, what: str) -> Callable:
        def counted(*args: Any) -> Any:
            setattr(self, what, getattr(self, what) + 1)
            return original(*args)

        return counted

    def all(self) -> tuple[int, int, int]:
        return self.loaded, self.text, self.image


def load_frozen_clip(cfg: Config, precision: str, device: torch.device) -> CLIP:
    return shared_clip.load_frozen_clip(backbone_of(cfg), precision, device)


def do(name: str, data: Path, output: Path) -> dict[str, Tensor]:
    """Does one of RUNS and returns what it learned and measured."""
    store = ("MODEL.FEATURES.FOLDER", str(output / "features"))
    run(data, output, *RANDOM, *store, epoch=1, **RUNS[name])
    return outcome(output)


def outcome(output: Path) -> dict[str, Tensor]:
    (record,) = read_records(output / "results.jsonl")
    found = {"accuracy": torch.tensor(record["metrics"]["accuracy"])}
    for path in output.glob("*/model.pth.tar-1"):
        state = torch.load(path, weights_only=True)["state_dict"]
        found |= {k: v for k, v in state.items() if isinstance(v, Tensor)}
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def golden(tmp_path: Path, **options: Any) -> Any:
    """Returns settings with a weights file of their own."""
    path = tmp_path / "clip.pt"
    if not path.exists():
        torch.save(model_state_dict("vit_a"), path)
    return make_cfg("vit_a", {"MODEL.BACKBONE.PATH": str(path), **options})


# --- it is shared ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_jobs_of_a_worker_load_and_fold_once(tmp_path, monkeypatch):
    counts = Counts(monkeypatch)
    train = Run("CoOp", "digits", "CoOp/tiny", 2, "base", 1, ("OPTIM.MAX_EPOCH", "1"))
    cocoop = Run("CoCoOp", "digits", "CoCoOp/tiny", 1, "base", 2, ("OPTIM.MAX_EPOCH", "1"))
    jobs = [train, evaluation_of(train, classes="new"), cocoop]
    jobs.append(Run("ZeroshotCLIP", "digits", "CoOp/tiny"))
    store = ("MODEL.FEATURES.FOLDER", str(tmp_path / "features"))
    for job in jobs:
        result = execute(Job(job, tmp_path, str(tmp_path / "data"), extra=store))
        assert result.state == "done", result.error
    assert counts.all() == (1, 1, 1)


@pytest.mark.slow
def test_the_first_run_and_later_ones_give_the_same_numbers(data, tmp_path, monkeypatch):
    counts = Counts(monkeypatch)
    warm = {name: do(name, data, tmp_path / "warm" / name) for name in RUNS}
    assert counts.all() == (1, 1, 1)
    for name in RUNS:
        shared_clip.forget()
        assert same(warm[name], do(name, data, tmp_path / "cold" / name)), name
    assert counts.loaded == 1 + len(RUNS)
    assert same(warm["coop1"], warm["coop1 again"])
    assert not torch.equal(warm["coop1"]["ctx"], warm["coop2"]["ctx"])


@pytest.mark.slow
def test_a_process_of_its_own_gives_the_same_numbers(data, tmp_path):
    for name in ("coop1", "coop2"):
        warm = do(name, data, tmp_path / name)
    code = (
        "import json, sys, torch; torch.set_num_threads(1); from pathlib import Path; "
        "from tests.encoders.test_shared import do; "
        "do('coop2', *map(Path, json.loads(sys.argv[1])))"
    )
    paths = json.dumps([str(data), str(tmp_path / "fresh")])
    subprocess.run([sys.executable, "-c", code, paths], cwd=ROOT, check=True, capture_output=True)
    assert same(warm, outcome(tmp_path / "fresh"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit_a", "vit_b", "rn_a", "tiny"])
def test_the_generator_is_left_as_loading_leaves_it(model):
    options = {"MODEL.BACKBONE.PATH": "", "MODEL.BACKBONE.NAME": "tiny"} if model == "tiny" else {}
    cfg = make_cfg("vit_a" if model == "tiny" else model, options)
    first = load_frozen_clip(cfg, "fp32", CPU)
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        torch.randn(seed)  # part of a group
        before = torch.get_rng_state()
        assert load_frozen_clip(cfg, "fp32", CPU) is first
        skipped = torch.get_rng_state()
        torch.set_rng_state(before)
        load_clip(cfg, "fp32")
        assert torch.equal(skipped, torch.get_rng_state())


@pytest.mark.slow
def test_what_belongs_to_the_classes_of_a_run_goes_with_it(data, tmp_path):
    do("coop1", data, tmp_path / "a")
    do("zero-shot", data, tmp_path / "b")
    gc.collect()
    tower = shared_clip._kept.clip_model._folded._value[-1]
    assert len(tower.constants) == 0


# --- it is another one ----------------------------------------------------------------------------


@pytest.mark.slow
def test_one_is_kept(tmp_path):
    cfg = golden(tmp_path)
    first = load_frozen_clip(cfg, "fp32", CPU)
    assert load_frozen_clip(cfg, "fp32", CPU) is first
    gone = weakref.ref(first)
    del first
    other = load_frozen_clip(cfg, "fp16", CPU)
    assert gone() is None
    assert other.visual.proj.dtype == torch.float16
    assert load_frozen_clip(make_cfg("vit_b"), "fp16", CPU).visual.output_dim == 96


def changed_weights() -> dict[str, Tensor]:
    weights = dict(model_state_dict("vit_a"))
    weights["visual.proj"] = weights["visual.proj"] * 2
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("how", ["replaced", "written over", "link"])
def test_a_changed_file_is_read_again(tmp_path, how):
    cfg = golden(tmp_path)
    path = Path(cfg.MODEL.BACKBONE.PATH)
    if how == "link":
        path.rename(tmp_path / "old.pt")
        path.symlink_to("old.pt")
    first = load_frozen_clip(cfg, "fp32", CPU)
    stat = path.stat()
    new = tmp_path / "new" / "clip.pt"  # the archive holds the name: of equal length
    new.parent.mkdir()
    torch.save(changed_weights(), new)
    assert new.stat().st_size == stat.st_size
    if how == "link":
        path.unlink()
        path.symlink_to(new)
    elif how == "replaced":
        new.replace(path)
    else:
        path.write_bytes(new.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = load_frozen_clip(cfg, "fp32", CPU)
    assert torch.equal(second.visual.proj, first.visual.proj * 2)


def test_the_image_size_is_checked_each_time(tmp_path):
    build = fed_by(ZeroshotCLIP, ["cat", "dog"], template="a photo of a {}.")
    shared = frozen_clip(image_features=True)(build)
    shared(golden(tmp_path))
    assert shared_clip._kept is not None
    with pytest.raises(ConfigError, match=r"INPUT.SIZE is \(64, 64\)"):
        shared(golden(tmp_path, **{"INPUT.SIZE": (64, 64)}))


# --- nobody spoils it -----------------------------------------------------------------------------


def write(clip_model: CLIP) -> None:
    with torch.no_grad():
        clip_model.visual.proj.add_(1)


def back_and_forth(clip_model: CLIP) -> None:
    clip_model.half().float()


def replace(clip_model: CLIP) -> None:
    clip_model.ln_final = nn.LayerNorm(64)


def unfreeze(clip_model: CLIP) -> None:
    clip_model.ln_final.weight.requires_grad_(True)


def add(clip_model: CLIP) -> None:
    clip_model.visual.adapter = nn.Linear(2, 2)


SPOILS = [write, back_and_forth, replace, unfreeze, add, nn.Module.train]


@pytest.mark.slow
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_spoilt_model_is_not_handed_on(tmp_path, spoil):
    cfg = golden(tmp_path)
    spoil(load_frozen_clip(cfg, "fp32", CPU))
    clip_model = load_frozen_clip(cfg, "fp32", CPU)
    weights = model_state_dict("vit_a")
    assert clip_model.state_dict().keys() == weights.keys()
    assert all(torch.equal(v, weights[k]) for k, v in clip_model.state_dict().items())
    assert not any(p.requires_grad for p in clip_model.parameters()) and not clip_model.training


def test_only_those_who_say_so_get_it(tmp_path):
    """Others write to what they get, even past autograd, and spoil nothing."""
    cfg = golden(tmp_path)
    kept = load_frozen_clip(cfg, "fp32", CPU)

    class Tuned(CoOp):
        """Does not say again that it leaves CLIP as it is."""

        def build_custom_clip(self, clip_model: CLIP) -> nn.Module:
            assert clip_model is not kept
            clip_model.visual.proj.data.zero_()
            return super().build_custom_clip(clip_model)

    fed_by(Tuned, ["cat", "dog"])(cfg)
    for own in (load_clip_to_cpu(cfg), load_clip(cfg, "fp32")):
        own.visual.proj.data.zero_()
    trainer = fed_by(ZeroshotCLIP, ["cat", "dog"])(cfg)
    assert trainer.clip_model is not kept

    @frozen_clip(image_features=True)
    class Reads(fed_by(ZeroshotCLIP, ["cat", "dog"])):
        pass

    assert Reads(cfg).clip_model is kept is load_frozen_clip(cfg, "fp32", CPU)
    assert kept.visual.proj.abs().sum() > 0
