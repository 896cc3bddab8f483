"""fp16, amp and fp32 train the same method: on a GPU in earnest, on a CPU as fp32."""

import json
from pathlib import Path

import pytest
import torch

import train
from dassl.engine import build_trainer
from dassl.utils import load_checkpoint, set_random_seed
from tests.runs import arguments, make_eurosat, run

METHODS = {
    "CoOp": {"trainer": "CoOp", "recipe": "CoOp/vit_b16_ctxv1"},
    "CoCoOp": {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"},
}
# Half precision carries 11 bits; a few steps through two layers stay well within this.
TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2, "amp": 5e-2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def options(method: str, precision: str, cuda: bool) -> tuple[str, ...]:
    key = f"TRAINER.{method.upper()}.PREC"
    return ("DATASET.NUM_SHOTS", "2", key, precision, "USE_CUDA", str(cuda))


def learned(folder: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(str(folder / "prompt_learner/model.pth.tar-2"))["state_dict"]
    return {k: v for k, v in state.items() if not k.startswith("token_")}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("method", METHODS)
def test_gpu_follows_the_cpu(data: Path, tmp_path: Path, method: str, precision: str):
    flags = {"epoch": 2, "train_batch_size": 4, **METHODS[method]}
    run(data, tmp_path / "cpu", *options(method, "fp32", cuda=False), **flags)
    run(data, tmp_path / "gpu", *options(method, precision, cuda=True), **flags)
    for name, value in learned(tmp_path / "cpu").items():
        ours = learned(tmp_path / "gpu")[name]
        assert ours.dtype == torch.float32
        error = (ours - value).abs().max() / value.abs().max()
        assert error < TOLERANCE[precision], name
    record = json.loads((tmp_path / "gpu/results.jsonl").read_text())
    assert record["precision"] == precision


@pytest.mark.gpu
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("method", METHODS)
def test_only_the_frozen_parts_are_in_half_precision(data, tmp_path, method, precision):
    trainer = built(data, tmp_path, method, precision, cuda=True)
    assert {p.dtype for p in trainer.model.prompt_learner.parameters()} == {torch.float32}
    half = trainer.model.image_encoder.conv1.weight.dtype == torch.float16
    assert half == (precision == "fp16")
    assert trainer.scaler.is_enabled() == (precision == "amp")


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("method", METHODS)
def test_a_cpu_computes_in_float32_and_says_so(data, tmp_path, capsys, method, precision):
    trainer = built(data, tmp_path, method, precision, cuda=False)
    assert trainer.precision == "fp32"
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    said = f"TRAINER.{method.upper()}.PREC is {precision}, which needs a GPU"
    assert (said in capsys.readouterr().out) == (precision != "fp32")


def built(data: Path, out: Path, method: str, precision: str, cuda: bool):
    args = arguments(data, out, *options(method, precision, cuda), **METHODS[method])
    defaults = vars(train.build_parser().parse_args([]))
    cfg = train.setup_cfg(type(args)(**{**defaults, **vars(args)}))
    set_random_seed(1)
    return build_trainer(cfg)
