"""Numbers that stay on a GPU until the log needs them: the same log, and no loss overlooked.

A CPU's numbers are kept back here as a GPU's would be.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dassl.engine import SimpleTrainer, step_reports
from dassl.engine.step_reports import MOST_WAITING, StepReports
from dassl.utils import NonFiniteLossError
from tests.runs import log_lines, make_eurosat, run
from trainers.coop import CoOp

# 20 batches an epoch
FEW = (
    "DATASET.NUM_SHOTS",
    "4",
    "DATALOADER.TRAIN_X.BATCH_SIZE",
    "1",
    "MODEL.FEATURES.STORE_MB",
    "0",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture
def kept_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_reports, "must_wait", lambda value: isinstance(value, Tensor))


def without_clock(lines: list[str]) -> list[str]:
    """The lines of the training, without times; the first run says more about the dataset."""
    lines = lines[lines.index("No checkpoint found, train from scratch") :]
    lines = [re.sub(r"(time|data) \S+ \(\S+\)", r"\1 # (#)", line) for line in lines]
    return [re.sub(r"eta .*|Elapsed: .*", "#", line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("frequency", ["1", "3", "20", "100"])
def test_log_and_tensorboard_are_the_same(data, tmp_path, monkeypatch, frequency):
    written: list[tuple] = []
    monkeypatch.setattr(
        SimpleTrainer, "write_scalar", lambda self, *scalar: written.append(scalar), raising=False
    )
    out = tmp_path / "out"
    results = []
    for waits in (False, True):
        monkeypatch.setattr(
            step_reports, "must_wait", lambda v, waits=waits: waits and isinstance(v, Tensor)
        )
        run(data, out, *FEW, "TRAIN.PRINT_FREQ", frequency, epoch=2, overwrite=True)
        results.append((without_clock(log_lines(out)), list(written)))
        written.clear()
    assert results[0] == results[1]
    assert len([s for s in results[0][1] if s[0] == "train/loss"]) == 40


def test_read_when_a_line_is_printed_and_at_the_end(data, tmp_path, monkeypatch, kept_back):
    read: list[int] = []
    plain = StepReports.take

    def take(self: StepReports) -> list:
        reports = plain(self)
        read.extend([len(reports)] if reports else [])
        return reports

    monkeypatch.setattr(StepReports, "take", take)
    run(data, tmp_path, *FEW, "TRAIN.PRINT_FREQ", "8", epoch=1)
    assert read == [8, 8, 4]


def break_batch(monkeypatch, batch_idx: int) -> None:
    """Makes the loss of one batch NaN."""
    plain = CoOp.compute_loss

    def compute_loss(self: CoOp, logits: Tensor, label: Tensor) -> Tensor:
        loss = plain(self, logits, label)
        return loss * float("nan") if self.batch_idx == batch_idx else loss

    monkeypatch.setattr(CoOp, "compute_loss", compute_loss)


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path, monkeypatch, kept_back):
    break_batch(monkeypatch, 1)
    with pytest.raises(NonFiniteLossError, match="epoch 1 of 2, batch 2 of 20, precision fp32"):
        run(data, tmp_path, *FEW, "TRAIN.CHECKPOINT_FREQ", "1", "TRAIN.PRINT_FREQ", "20", epoch=2)
    assert not list(tmp_path.rglob("model*.pth.tar*"))
    assert not list(tmp_path.rglob("progress*"))


def test_nothing_is_saved_after_it_within_an_epoch(data, tmp_path, monkeypatch, kept_back):
    break_batch(monkeypatch, 1)
    plain = CoOp.forward_backward
    reached: list[int] = []

    def forward_backward(self: CoOp, batch: dict) -> dict:
        summary = plain(self, batch)
        reached.append(self.batch_idx)
        if self.batch_idx == 3:
            self.save_model(0, str(tmp_path / "mine"))
        return summary

    monkeypatch.setattr(CoOp, "forward_backward", forward_backward)
    with pytest.raises(NonFiniteLossError, match="batch 2 of 20"):
        run(data, tmp_path, *FEW, "TRAIN.PRINT_FREQ", "20", epoch=1)
    assert reached == [0, 1, 2, 3]
    assert not list(tmp_path.rglob("model*.pth.tar*"))


def test_nothing_is_saved_in_the_very_step(data, tmp_path, monkeypatch, kept_back):
    break_batch(monkeypatch, 1)
    plain = CoOp.forward_backward

    def forward_backward(self: CoOp, batch: dict) -> dict:
        summary = plain(self, batch)
        if self.batch_idx == 1:
            self.save_model(0, str(tmp_path / "mine"))
        return summary

    monkeypatch.setattr(CoOp, "forward_backward", forward_backward)
    with pytest.raises(NonFiniteLossError, match="batch 2 of 20"):
        run(data, tmp_path, *FEW, "TRAIN.PRINT_FREQ", "20", epoch=1)
    assert not list(tmp_path.rglob("model*.pth.tar*"))


def test_on_a_cpu_nothing_is_learned_from_it(data, tmp_path, monkeypatch):
    break_batch(monkeypatch, 1)
    learned: list[Tensor] = []
    plain = CoOp.check_loss

    def check_loss(self: CoOp, loss: Tensor) -> None:
        try:
            plain(self, loss)
        finally:
            learned.append(self.model.prompt_learner.ctx.detach().clone())

    monkeypatch.setattr(CoOp, "check_loss", check_loss)
    trainers: list[CoOp] = []
    monkeypatch.setattr(CoOp, "before_epoch", lambda self: trainers.append(self))
    with pytest.raises(NonFiniteLossError, match="batch 2 of 20"):
        run(data, tmp_path, *FEW, epoch=1)
    assert len(learned) == 2
    assert torch.equal(trainers[0].model.prompt_learner.ctx, learned[1])


def test_a_loss_that_the_log_does_not_show(data, tmp_path, monkeypatch, kept_back):
    break_batch(monkeypatch, 1)
    monkeypatch.setattr(CoOp, "summarize", lambda self, loss, logits, label: {"acc": 50.0})
    with pytest.raises(NonFiniteLossError, match="batch 2 of 20"):
        run(data, tmp_path, *FEW, epoch=1)


# --- reports --------------------------------------------------------------------------------------


def test_values_are_read_exactly_and_in_order(kept_back):
    reports = StepReports()
    values = torch.rand(3, generator=torch.Generator().manual_seed(0))
    for i, value in enumerate(values):
        reports.add(i, 0.1 * i, {"loss": value, "acc": 50, "half": value.half()[None]})
        assert not reports.due()
    for i, (index, lr, summary) in enumerate(reports.take()):
        assert (index, lr) == (i, 0.1 * i)
        half = values[i].half().item()
        assert summary == {"loss": values[i].item(), "acc": 50, "half": half}
    assert reports.take() == []


def test_values_are_those_of_their_time(kept_back):
    """A trainer may count in place, and its loss may hold a whole graph."""
    reports, total = StepReports(), torch.zeros((), requires_grad=True)
    for i in range(3):
        reports.add(i, 0.0, {"total": total})
        with torch.no_grad():
            total += 1
    assert [r.summary["total"] for r in reports.take()] == [0, 1, 2]


def test_many_reports_are_read_early(kept_back):
    reports = StepReports()
    for i in range(MOST_WAITING):
        assert i == 0 or not reports.due()
        reports.add(i, 0.0, {"loss": torch.ones(())})
    assert reports.due()


def test_on_a_cpu_nothing_waits():
    reports = StepReports()
    reports.add(0, 0.0, {"loss": torch.tensor(1.5), "acc": 1})
    assert reports.due()
    assert reports.take()[0].summary == {"loss": 1.5, "acc": 1}


def test_a_step_without_a_summary():
    reports = StepReports()
    reports.add(0, 0.5, None)
    assert reports.due()
    assert reports.take() == [(0, 0.5, None)]


def test_a_tensor_of_several_elements(kept_back):
    with pytest.raises(RuntimeError):
        StepReports().add(0, 0.0, {"loss": torch.ones(2)})
