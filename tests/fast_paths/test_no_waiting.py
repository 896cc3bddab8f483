"""Steps that never wait for a GPU: on a GPU, and on a CPU that does as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dassl.engine import step_reports
from encoders.kernels import tree_attention
from tests.fast_paths.test_captured_step import METHODS, TOLERANCE, build, make_batches
from trainers import prompt_trainer
from trainers.cocoop import CoCoOp
from trainers.coop import CoOp
from trainers.dept import DePT
from trainers.ivlp import IVLP
from trainers.kgcoop import KgCoOp
from trainers.lasp import LASP
from trainers.maple import MaPLe
from trainers.prograd import ProGrad
from trainers.prometar import ProMetaR
from trainers.promptsrc import PromptSRC
from trainers.tcp import TCP
from trainers.vpt import VPT


class HostReads(TorchDispatchMode):
    """Notes operations that hand a number, or a number of elements, to the host."""

    KINDS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "_unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and len(args) > 1 else None
        by_mask = isinstance(indices, (list, tuple)) and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in indices
        )
        if name.startswith(self.KINDS) or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


STEPS = [
    (CoOp, {}),
    (CoOp, {"MODEL.TEXT_CHUNK": 12}),
    (CoOp, {"TRAINER.COOP.CLASS_TOKEN_POSITION": "middle"}),
    (CoOp, {"TRAINER.COOP.CLASS_TOKEN_POSITION": "front", "TRAINER.COOP.CSC": True}),
    (CoCoOp, {}),
    (CoCoOp, {"MODEL.TEXT_CHUNK": 12}),
    (KgCoOp, {}),
    (ProGrad, {}),
    (TCP, {"TRAINER.TCP.DEPTH": 1, "MODEL.TEXT_CHUNK": 12}),
    (LASP, {"TRAINER.LASP.GROUPS": 2}),
    (DePT, {}),
    (VPT, {"TRAINER.VPT.PROMPT_DEPTH_VISION": 2}),
    (IVLP, {f"TRAINER.IVLP.PROMPT_DEPTH_{tower}": 2 for tower in ("VISION", "TEXT")}),
    (MaPLe, {"TRAINER.MAPLE.PROMPT_DEPTH": 2}),
    (PromptSRC, {f"TRAINER.PROMPTSRC.PROMPT_DEPTH_{tower}": 2 for tower in ("VISION", "TEXT")}),
    (ProMetaR, {f"TRAINER.PROMETAR.PROMPT_DEPTH_{tower}": 2 for tower in ("VISION", "TEXT")}),
]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(("trainer_class", "options"), STEPS)
def test_a_step_reads_nothing_back(monkeypatch, trainer_class, options, precision):
    """As on a GPU, where reading waits; on a CPU it costs nothing and the loss is looked at.

    With amp, the scaler reads a number for each optimizer: whether its step has to be skipped.
    """
    on_a_gpu = staticmethod(tree_attention.fused_attention)
    monkeypatch.setattr(tree_attention._TwoPartAttention, "apply", on_a_gpu)
    monkeypatch.setattr(prompt_trainer, "resolve_precision", lambda prec, device, key: prec)
    node = trainer_class.config_node or "COOP"  # DePT's prompts are CoOp's
    batches, key = make_batches(*[3] * 4), f"TRAINER.{node}.PREC"
    trainer = build(trainer_class, batches, **{key: precision, **options})
    trainer.num_batches = len(batches)
    trainer.forward_backward(batches[0])  # makes what is made once
    descents, reads = 1, len(trainer._optims)  # of the scaler
    if trainer_class is ProMetaR:  # two steps down, the second by both optimizers
        descents, reads = 2, 3
        task = trainer.draw_task(batches[0]["label"])  # from labels that are on the CPU anyway
        monkeypatch.setattr(trainer, "draw_task", lambda label: task)
        monkeypatch.setattr(trainer, "encodes_all", lambda: True)
    by_scaler = ["_local_scalar_dense"] * (reads if precision == "amp" else 0)
    with HostReads() as on_cpu:
        trainer.forward_backward(batches[1])
    looks = ["_local_scalar_dense"] * (1 if by_scaler else descents)
    assert on_cpu.seen == [*looks, *by_scaler], "the look at the loss is seen"
    monkeypatch.setattr(step_reports, "must_wait", lambda value: isinstance(value, Tensor))
    names = ("tolist", "numpy", "cpu") if by_scaler else ("item", "tolist", "numpy", "cpu")
    for name in names:
        monkeypatch.setattr(Tensor, name, _forbidden, raising=False)
    with HostReads() as reads:
        for trainer.batch_idx in (2, 3):  # the last of them ends an epoch
            trainer.forward_backward(batches[trainer.batch_idx])
    assert reads.seen == 2 * by_scaler


def _forbidden(*_: Any) -> None:
    raise AssertionError("read back to the host")


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.item(),
        lambda x: bool(x),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
    ],
)
def test_what_would_wait_is_seen(read):
    with HostReads() as reads:
        read(torch.ones(1))
    assert reads.seen


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@METHODS
@pytest.mark.parametrize("precision", ["fp32", "fp16"])  # amp's scaler reads one number
@pytest.mark.parametrize("captured", [True, False])
def test_a_step_never_waits_for_the_gpu(trainer_class, precision, captured):
    key = f"TRAINER.{trainer_class.config_node}.PREC"
    options = {"USE_CUDA": True, key: precision, "MODEL.CUDA_GRAPH": captured}
    batches = make_batches(*[4] * 10)
    trainer = build(trainer_class, batches, **options)
    trainer.num_batches = 100
    for trainer.batch_idx, batch in enumerate(batches[:5]):
        trainer.forward_backward(batch)
    with waiting_is_an_error():
        for trainer.batch_idx, batch in enumerate(batches[5:], 5):
            trainer.forward_backward(batch)
    assert not captured or all(g.replays() for g in trainer._step_graphs.values())
