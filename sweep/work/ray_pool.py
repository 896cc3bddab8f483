"""The executor for many machines: jobs as Ray tasks. Optional: `pip install ray`.

All machines must see the output folder and the data under the same paths. A job whose machine is
lost is submitted again elsewhere, where it resumes from its last checkpoint. Each job takes an
equal share of a GPU where there are GPUs, and one CPU.
"""

from __future__ import annotations

import math
from typing import Any

from dassl.utils import ConfigError
from sweep.plan.run import ROOT
from sweep.work.execute import Job, Outcome, execute

LOST_RETRIES = 5  # attempts of a job whose worker or machine dies


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "--executor ray needs the package ray: pip install 'ray>=2.9'; without it, leave out "
            "--executor: the runs are then done on this machine"
        ) from None
    return ray


class RayExecutor:
    """Runs up to `jobs` jobs at once on a Ray cluster.

    Args:
        jobs: number of tasks at once, on all machines together.
        address: of the cluster; None: one is started on this machine.
        gpus_per_job: share of a GPU that a job takes; None: none if the cluster has no GPU,
            otherwise the share with which `jobs` jobs fit.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(
        self, jobs: int, address: str | None = None, gpus_per_job: float | None = None
    ) -> None:
        ray = _ray()
        if not ray.is_initialized():
            environment = {"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
            ray.init(address, runtime_env=environment, log_to_driver=False)
        gpus = ray.cluster_resources().get("GPU", 0.0)
        if gpus_per_job is None:
            gpus_per_job = 1 / math.ceil(jobs / gpus) if gpus else 0.0  # a share lies on one GPU
        self.jobs = jobs
        self.running: dict[Any, Job] = {}
        self.task = ray.remote(
            num_cpus=1, num_gpus=gpus_per_job, max_retries=LOST_RETRIES, retry_exceptions=False
        )(execute)

    @property
    def free(self) -> int:
        return self.jobs - len(self.running)

    def submit(self, job: Job) -> None:
        self.running[self.task.remote(job)] = job

    def wait(self, timeout: float | None = None) -> list[tuple[Job, Outcome]]:
        """Waits until a job ends, or for `timeout` seconds; returns what ended."""
        ray = _ray()
        ready, _ = ray.wait(list(self.running), num_returns=1, timeout=timeout)
        return [(self.running.pop(task), _outcome(ray, task)) for task in ready]

    def close(self) -> None:
        ray = _ray()
        for task in self.running:
            ray.cancel(task, force=True)
        self.running.clear()
        ray.shutdown()


def _outcome(ray: Any, task: Any) -> Outcome:
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        return Outcome("failed", error=f"{type(error).__name__}: {lines[0] if lines else ''}")
