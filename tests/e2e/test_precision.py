"""fp16, amp and fp32 train the same method: on a GPU, and on a CPU that is made to do as one."""

import functools
import json
from pathlib import Path

import pytest
import torch

import train
from dassl.engine import build_trainer
from dassl.utils import load_checkpoint, set_random_seed
from tests.runs import arguments, make_eurosat, run
from trainers import prompt_trainer

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


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def half_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU, or its twin: a CPU that computes in half precision as well."""
    if request.param == "cpu":
        monkeypatch.setattr(prompt_trainer, "resolve_precision", lambda prec, device, key: prec)
    return request.param


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_follows_float32(
    data: Path, tmp_path: Path, monkeypatch, half_device: str, method: str, precision: str
):
    # So that no step is skipped: with torch's start, 2^16, the first few of a training are.
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**8)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    flags = {"epoch": 2, "train_batch_size": 4, **METHODS[method]}
    run(data, tmp_path / "float", *options(method, "fp32", cuda=False), **flags)
    run(data, tmp_path / "half", *options(method, precision, half_device == "cuda"), **flags)
    for name, value in learned(tmp_path / "float").items():
        ours = learned(tmp_path / "half")[name]
        assert ours.dtype == torch.float32
        error = (ours - value).abs().max() / value.abs().max()
        assert error < TOLERANCE[precision], name
    record = json.loads((tmp_path / "half/results.jsonl").read_text())
    assert record["precision"] == precision
    assert (record["device"] != "cpu") == (half_device == "cuda")


@pytest.mark.parametrize("method", METHODS)
def test_amp_skips_steps_until_its_scale_fits(data, tmp_path, monkeypatch, half_device, method):
    """Nothing is learned from gradients that overflow, and nothing is spoilt by them."""
    # A first scale that no gradient here survives, and a second that each does.
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**40, backoff_factor=2.0**-32)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    trainer = built(data, tmp_path, method, "amp", half_device == "cuda", "OPTIM.MAX_EPOCH", "3")
    before = [p.detach().clone() for p in trainer.learned.parameters()]
    trainer.train()
    assert trainer.scaler.get_scale() == 2.0**8, "no step was skipped: the case is not tried"
    after = list(trainer.learned.parameters())
    assert all(p.isfinite().all() for p in after)
    assert not any(torch.equal(p, q) for p, q in zip(before, after))


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("method", METHODS)
def test_only_the_frozen_parts_are_in_half_precision(
    data, tmp_path, half_device, method, precision
):
    trainer = built(data, tmp_path, method, precision, half_device == "cuda")
    assert trainer.device.type == half_device
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


def built(data: Path, out: Path, method: str, precision: str, cuda: bool, *opts: str):
    args = arguments(data, out, *options(method, precision, cuda), *opts, **METHODS[method])
    defaults = vars(train.build_parser().parse_args([]))
    cfg = train.setup_cfg(type(args)(**{**defaults, **vars(args)}))
    set_random_seed(1)
    return build_trainer(cfg)
