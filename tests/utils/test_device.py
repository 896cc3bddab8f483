"""A GPU that is not there, full, taken or too new is a sentence; float32 means float32."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.utils import device
from dassl.utils.device import DeviceError, multiply_in_full, prepare_device
from dassl.utils.system_errors import SystemTroubleError, system_errors_explained

ROOT = Path(__file__).resolve().parents[2]
LISTING = "0, NVIDIA H100 80GB HBM3, 12 MiB, 81559 MiB\n1, NVIDIA L4, 23034 MiB, 23034 MiB\n"
SHOWN = "0 = NVIDIA H100 80GB HBM3 (12 MiB of 81559 MiB free); 1 = NVIDIA L4 (23034 MiB of"
TO_TYPE = "type CUDA_VISIBLE_DEVICES=NUMBER before the command for another one, or USE_CUDA False"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that knows two GPUs."""
    (tmp_path / "answer").write_text(LISTING)
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat '{tmp_path}/answer'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def raising(error: Exception):
    def function(*_: object, **__: object):
        raise error

    return function


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "CUDA error: all CUDA-capable devices are busy or unavailable\nSearch for",
            "another process has it for itself, or its compute mode is Prohibited",
        ),
        ("CUDA error: out of memory", "its memory is full"),
        ("CUDA error: no kernel image is available", "this PyTorch has no code for a GPU of its"),
        (TOO_OLD, "the NVIDIA driver is too old for this PyTorch"),
        (
            "CUDA error: unspecified launch failure.\nmore",
            "CUDA error: unspecified launch failure;",
        ),
    ],
)
def test_a_gpu_that_does_not_compute(driver, monkeypatch, said, meant):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch, "ones", raising(RuntimeError(said)))
    with pytest.raises(DeviceError) as caught:
        prepare_device(get_cfg_default())
    sentence = str(caught.value)
    assert sentence.startswith(f"cuda:0 (NVIDIA H100 80GB HBM3) cannot be used: {meant}")
    assert SHOWN in sentence
    assert TO_TYPE in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("variable", "said", "raises", "warns"),
    [
        ("7", "No CUDA GPUs are available", True, False),
        ("0", TOO_OLD, True, False),
        ("", "No CUDA GPUs are available", False, False),
        ("-1", "No CUDA GPUs are available", False, False),
        ("NoDevFiles", "No CUDA GPUs are available", False, False),
        ("0", "Found no NVIDIA driver on your system.", False, False),
        (None, "Found no NVIDIA driver on your system.", False, False),
        (None, TOO_OLD, False, True),
    ],
)
def test_no_gpu_for_torch(driver, monkeypatch, caplog, variable, said, raises, warns):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", raising(RuntimeError(said)))
    if raises:
        with pytest.raises(DeviceError, match=rf"CUDA_VISIBLE_DEVICES is '{variable}'.*{TO_TYPE}"):
            prepare_device(get_cfg_default())
    else:
        prepare_device(get_cfg_default())
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warns
    assert ("the NVIDIA driver is too old" in caplog.text) == warns


def test_nothing_is_asked_where_no_gpu_is_wanted(monkeypatch):
    cfg = get_cfg_default()
    cfg.USE_CUDA = False
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    for name in ("is_available", "init", "device_count"):
        monkeypatch.setattr(torch.cuda, name, raising(AssertionError(name)))
    prepare_device(cfg)


@pytest.mark.parametrize("answer", ["", "No devices were found\n", "a, b\n"])
def test_a_driver_that_names_no_gpu(driver, tmp_path, answer):
    (tmp_path / "answer").write_text(answer)
    assert device.installed_gpus() == []


def test_full_memory_is_a_sentence(driver):
    with pytest.raises(SystemTroubleError) as caught, system_errors_explained():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    sentence = str(caught.value)
    for part in ("cuda", SHOWN, "MODEL.TEXT_CHUNK", "BATCH_SIZE", TO_TYPE):
        assert part in sentence
    with pytest.raises(SystemTroubleError, match=r"MODEL\.TEXT_CHUNK"), system_errors_explained():
        torch.empty(2**60, dtype=torch.uint8)


BEFORE = [
    "pass",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = True",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cudnn.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
]


@pytest.mark.slow
def test_float32_is_float32():
    """Whatever was set before, in torch's old way or in its new one, which must not be mixed."""
    script = f"""
import torch
from dassl.utils.device import multiply_in_full
new_way = hasattr(torch.backends, "fp32_precision")
for before in {BEFORE}:
    if "fp32_precision" in before and not new_way:
        continue
    exec(before)
    multiply_in_full()
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False), before
    assert torch.get_float32_matmul_precision() == "highest", before
    assert not matmul.allow_fp16_reduced_precision_reduction, before
    if new_way:
        assert {{matmul.fp32_precision, cudnn.conv.fp32_precision}} == {{"ieee"}}, before
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_float32_products_on_a_gpu():
    multiply_in_full()
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(256, 256, generator=generator) for _ in range(2))
    image, kernel = x.view(4, 16, 32, 32), y[:64, :144].reshape(64, 16, 3, 3)
    ours = [x.cuda() @ y.cuda(), torch.conv2d(image.cuda(), kernel.cuda())]
    truth = [x.double() @ y.double(), torch.conv2d(image.double(), kernel.double())]
    for a, b in zip(ours, truth):
        error = (a.cpu().double() - b).norm() / b.norm()
        assert error < 1e-5, "TF32 keeps 11 bits: 3e-4"
