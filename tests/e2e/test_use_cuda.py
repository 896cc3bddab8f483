"""USE_CUDA False: a GPU that is there is left alone. Here one seems to be there; its use raises."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.machine import describe_run
from dassl.utils.random_state import random_state, set_random_state
from tests.runs import ROOT, make_eurosat, run

OFF = ("USE_CUDA", "False", "DATASET.NUM_SHOTS", "2")
METHODS = {
    "CoOp": "CoOp/vit_b16_ctxv1",
    "CoCoOp": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1",
    "ZeroshotCLIP": "CoOp/vit_b16_ctxv1",
    "LinearProbe": "CoOp/vit_b16_ctxv1",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def forbidden_gpu(monkeypatch):
    def use(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the GPU was used")

    def is_available() -> bool:
        caller = Path(sys._getframe(1).f_code.co_filename)
        assert not caller.is_relative_to(ROOT), f"{caller} asks for a GPU"
        return True

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("_lazy_init", "get_rng_state_all", "set_rng_state_all", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, use)
    with pytest.raises(AssertionError, match="GPU was used"):  # the fake works
        torch.zeros(1, device="cuda")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_training_and_evaluating(data, tmp_path, method):
    opts = (*OFF, "TEST.ERROR_ANALYSIS", "True")
    if method == "CoOp":  # keeps its state after each step
        opts += ("TRAIN.CHECKPOINT_SECONDS", "0.001")
    recipe = METHODS[method]
    run(data, tmp_path / "run", *opts, trainer=method, recipe=recipe, epoch=1)
    record = json.loads((tmp_path / "run/results.jsonl").read_text().splitlines()[-1])
    assert record["device"] == "cpu" and record["peak_memory_mib"] is None
    if method.startswith("Co"):
        flags = {"eval_only": True, "model_dir": str(tmp_path / "run"), "load_epoch": 1}
        run(data, tmp_path / "test", *opts, trainer=method, recipe=recipe, **flags)
        run(data, tmp_path / "run", *opts, trainer=method, recipe=recipe, epoch=1, overwrite=True)


@pytest.mark.parametrize("kept", ["MODEL.FIXED_VIEWS", "MODEL.FEATURES.STORE_MB"])
def test_features(data, tmp_path, kept):
    """Views and test images are read by processes, whose batches are not pinned."""
    value = "True" if kept == "MODEL.FIXED_VIEWS" else "0"
    folder = ("MODEL.FEATURES.FOLDER", str(tmp_path / "features"))
    workers = ("DATALOADER.NUM_WORKERS", "1")
    run(data, tmp_path / "run", *OFF, *folder, *workers, kept, value, epoch=1)


def test_random_states():
    """Those of a GPU's run, which a checkpoint holds, are left out."""
    assert random_state(gpus=True)["cuda"] == []
    set_random_state({**random_state(), "cuda": [torch.get_rng_state()]})


def test_the_device_is_decided_in_one_place():
    folders = ("dassl", "encoders", "features", "trainers", "datasets", "sweep")
    files = [ROOT / "train.py", *(path for f in folders for path in (ROOT / f).rglob("*.py"))]
    asking = [path for path in files if "cuda.is_available" in path.read_text(encoding="utf-8")]
    # `python -m trainers` tells of a machine, and computes nothing by it.
    assert asking == [ROOT / "dassl/utils/device.py", ROOT / "trainers/__main__.py"]


def test_a_benchmark_on_the_cpu():
    assert describe_run(["x"], device="cpu")["gpu"] is None
