"""Which datasets lie below a root, so that a sweep says before it starts what cannot run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import MissingFileError
from dassl.utils.text import counted
from datasets.readers.roots import download_command
from sweep.plan.own import config_of, own_name, place_below
from sweep.plan.recipes import EMBEDDED
from sweep.plan.run import DATASETS, Run


def missing_data(datasets: Iterable[str], root: Path) -> dict[str, str]:
    """Returns dataset → folder that was looked for in vain; those that are there are left out."""
    missing = {}
    for name in dict.fromkeys(datasets):
        if name == EMBEDDED:  # writes its files itself
            continue
        place = Path(place_below(name, str(root)))
        _, image_dir = DATASET_REGISTRY.get(_registered_name(name)).locate(place)
        if not image_dir.is_dir():
            missing[name] = str(image_dir)
    return missing


def _registered_name(dataset: str) -> str:
    config = DATASETS / f"{config_of(dataset)}.yaml"
    return yaml.safe_load(config.read_text(encoding="utf-8"))["DATASET"]["NAME"]


def missing_text(runs: tuple[Run, ...], missing: Mapping[str, str], root: Path) -> str:
    """Returns which datasets there are and which not, a line each; "" if none is missing."""
    if not missing:
        return ""
    there = [name for name in dict.fromkeys(run.dataset for run in runs) if name not in missing]
    lacking = f"{counted(len(missing), 'dataset')} {'is' if len(missing) == 1 else 'are'} missing"
    lines = [f"below --root {root}, {lacking}:"]
    lines += [f"  {own_name(name)}: there is no {folder}" for name, folder in missing.items()]
    lines += [f"  there are: {', '.join(map(own_name, there)) or 'none'}"]
    commands = [download_command(_registered_name(name), root) for name in missing]
    return "\n".join([*lines, *(f"  {command}" for command in commands if command)])


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
            f"add --skip-missing to do the {len(left)} of {counted(len(runs), 'run')} that need "
            "none of them, or fetch them as above (docs/datasets.md)"
            if left
            else "fetch what is missing as above (docs/datasets.md), or name another --root; "
            f"--datasets {EMBEDDED} needs no download"
        )
        raise MissingFileError(f"{missing_text(runs, missing, root)}\n{advice}")
    return left
