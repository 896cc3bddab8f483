"""Which datasets lie below a root, so that a sweep says before it starts what cannot run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import MissingFileError
from sweep.plan.recipes import EMBEDDED
from sweep.plan.run import ROOT, Run


def missing_data(datasets: Iterable[str], root: Path) -> dict[str, str]:
    """Returns dataset → folder that was looked for in vain; those that are there are left out."""
    missing = {}
    for name in dict.fromkeys(datasets):
        if name == EMBEDDED:  # writes its files itself
            continue
        config = ROOT / "configs" / "datasets" / f"{name}.yaml"
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        _, image_dir = DATASET_REGISTRY.get(content["DATASET"]["NAME"]).locate(root)
        if not image_dir.is_dir():
            missing[name] = str(image_dir)
    return missing


def missing_text(runs: tuple[Run, ...], missing: Mapping[str, str], root: Path) -> str:
    """Returns which datasets there are and which not, a line each; "" if none is missing."""
    if not missing:
        return ""
    there = [name for name in dict.fromkeys(run.dataset for run in runs) if name not in missing]
    lines = [f"below --root {root}, {len(missing)} of the datasets are missing:"]
    lines += [f"  {name}: there is no {folder}" for name, folder in missing.items()]
    return "\n".join([*lines, f"  there are: {', '.join(there) or 'none'}"])


def without_missing(runs: tuple[Run, ...], root: Path, skip: bool) -> tuple[Run, ...]:
    """Returns the runs whose data are there.

    Args:
        skip: leave out the others, and what depends on them; otherwise they are an error.

    Raises:
        MissingFileError: datasets are missing and `skip` is off, or all are missing.
    """
    missing = missing_data((run.dataset for run in runs), root)
    lost = {run for run in runs if run.dataset in missing}
    left = tuple(run for run in runs if run not in lost and run.source not in lost)
    if missing and (not skip or not left):
        advice = (
            f"add --skip-missing to do the {len(left)} of {len(runs)} runs that need none of them, "
            "or fetch them (docs/datasets.md)"
            if left
            else "fetch them (docs/datasets.md), or name another --root; "
            f"--datasets {EMBEDDED} needs no download"
        )
        raise MissingFileError(f"{missing_text(runs, missing, root)}\n{advice}")
    return left
