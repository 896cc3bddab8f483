"""The same sweep on a Ray cluster of two machines, one of which is lost half-way."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dassl.utils import ConfigError
from sweep.plan.request import Request
from sweep.work import ray_pool
from sweep.work.execute import Job, execute
from sweep.work.folder import RunFolder
from sweep.work.ray_pool import RayExecutor
from sweep.work.runner import Sweep

REQUEST = Request(
    "base2new",
    ("CoOp",),
    ("digits",),
    seeds=(1, 2),
    shots=(4,),
    opts=("OPTIM.MAX_EPOCH", "20"),
)


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'ray"):
        RayExecutor(1)
    assert ray_pool.LOST_RETRIES > 0


@pytest.mark.parametrize(
    ("gpus", "jobs", "share"),
    [(2, 3, 1 / 2), (8, 12, 1 / 2), (4, 4, 1), (4, 2, 1), (1, 5, 1 / 5), (0, 3, 0)],
)
def test_all_jobs_fit_on_the_gpus(monkeypatch, gpus, jobs, share):
    """A job's share lies on one of them."""
    asked = {}
    ray = SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: {"GPU": float(gpus)} if gpus else {},
        remote=lambda **settings: asked.update(settings) or (lambda work: work),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    RayExecutor(jobs)
    assert asked["num_gpus"] == share


@pytest.mark.slow
def test_a_lost_machine_changes_nothing(tmp_path: Path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    runs = REQUEST.runs()
    data, whole, spread = tmp_path / "data", tmp_path / "whole", tmp_path / "spread"
    expected = [execute(Job(run, whole, str(data))).accuracy for run in runs]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        other = cluster.add_node(num_cpus=1)
        executor = RayExecutor(2, cluster.address)
        sweep = Sweep([Job(run, spread, str(data)) for run in runs], at_once=2)
        handle = sweep._handle

        def handle_and_lose(run, outcome):
            nonlocal other
            handle(run, outcome)
            if other is not None:
                cluster.remove_node(other, allow_graceful=False)
                other = None

        sweep._handle = handle_and_lose
        sweep.run(executor)
    finally:
        cluster.shutdown()
    assert not sweep.failed, sweep.failed
    assert [RunFolder(run, spread).record()["metrics"]["accuracy"] for run in runs] == expected
