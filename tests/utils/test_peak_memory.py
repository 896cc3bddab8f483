"""The memory in a record is that of the run."""

import gc
import weakref

import pytest
import torch

from dassl.utils.device import forget_peak_memory


class _Cycle:
    def __init__(self):
        self.own = self


def test_a_run_begins_with_what_is_held_then(monkeypatch):
    """What an earlier trainer holds, which refers to itself, is gone when the mark is set back."""
    earlier = weakref.ref(_Cycle())
    seen = []
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: seen.append((device, earlier()))
    )
    forget_peak_memory(torch.device("cuda"))
    assert seen == [(torch.device("cuda"), None)]


def test_nothing_is_asked_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: 1 / 0)
    monkeypatch.setattr(gc, "collect", lambda: 1 / 0)
    forget_peak_memory(torch.device("cpu"))


@pytest.mark.gpu
def test_what_an_earlier_run_took_is_not_counted():
    device = torch.device("cuda")
    torch.zeros(2**28, device=device)  # 1 GiB
    forget_peak_memory(device)
    torch.zeros(2**20, device=device)
    assert torch.cuda.max_memory_allocated() < torch.cuda.memory_allocated() + 2**24
