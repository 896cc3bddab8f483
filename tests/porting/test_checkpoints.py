"""What other engines find in a checkpoint of ours: plain data, as torch's own classes save it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from dassl.optim import build_lr_scheduler
from dassl.utils import save_checkpoint
from tests.optim.golden_schedules import optim_node

SCHEDULES = {
    "cosine": ({}, lambda optim: lr_scheduler.CosineAnnealingLR(optim, 6)),
    "single_step": ({"STEPSIZE": (2,)}, lambda optim: lr_scheduler.StepLR(optim, 2, 0.1)),
    "multi_step": (
        {"STEPSIZE": (2, 4)},
        lambda optim: lr_scheduler.MultiStepLR(optim, (2, 4), 0.1),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_another_engine_goes_on_with_the_schedule(tmp_path: Path, name: str):
    """Without a warm-up: with one, no plain data can stand for the scheduler that follows it."""
    settings, theirs = SCHEDULES[name]
    model = torch.nn.Linear(2, 1)
    optimizer = SGD(model.parameters(), lr=0.5)
    ours = build_lr_scheduler(
        optimizer, optim_node(LR=0.5, LR_SCHEDULER=name, MAX_EPOCH=6, GAMMA=0.1, **settings)
    )
    rates = []
    for epoch in range(6):
        if epoch == 3:
            save_checkpoint(
                {
                    **{"state_dict": model.state_dict(), "epoch": epoch},
                    **{"optimizer": optimizer.state_dict(), "scheduler": ours.state_dict()},
                },
                str(tmp_path),
            )
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        ours.step()
    saved = torch.load(tmp_path / "model.pth.tar-3", weights_only=True)
    again = SGD(torch.nn.Linear(2, 1).parameters(), lr=0.5)
    schedule = theirs(again)
    again.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["scheduler"])
    for rate in rates[3:]:
        assert again.param_groups[0]["lr"] == rate
        again.step()
        schedule.step()
