"""Which GPU a worker gets; no GPU is needed to see it."""

import argparse
import io
import os
import subprocess
from types import SimpleNamespace

import pytest
import torch

from sweep.cli import default_jobs, executor_of
from sweep.work import local
from sweep.work.local import LocalExecutor

GIB = 2**30


@pytest.fixture
def two_gpus(monkeypatch):
    """Two devices with 9 and 40 GiB free."""
    free = [9 * GIB, 40 * GIB]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (free[i], 80 * GIB))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_jobs_follow_the_free_memory(two_gpus):
    assert default_jobs() == 1 + 4  # one for each 8 GiB, at most four a GPU


@pytest.mark.parametrize(("visible", "names"), [(None, "01"), ("5,7", "57")])
def test_each_device_gets_what_it_has_room_for(two_gpus, monkeypatch, visible, names):
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    small, large = names
    executor = executor_of(argparse.Namespace(executor="local"), 6)
    assert executor.gpus == [small, large, large, large, large, small]  # asked for one more


def test_a_worker_sees_its_own_device_alone(monkeypatch):
    seen = []

    def popen(command, env, **_):
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))
        read, _write = os.pipe()
        return SimpleNamespace(stdin=io.StringIO(), stdout=os.fdopen(read))

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(local, "encode", lambda job: "job\n")
    executor = LocalExecutor(3, 1, ("0", "1"))
    for number in range(3):
        executor.submit(number)
    assert seen == ["0", "1", "0"]
    assert executor.free == 0
