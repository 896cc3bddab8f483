"""Runs that are looked at: CoOp on base classes, tested on new ones, and zero-shot CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.prompts.runs import FEW
from tests.runs import make_eurosat, run

ANALYSED = ("TEST.ERROR_ANALYSIS", "True")
OWN_NAMES = ('<b>&"', "cat", "dog")


@dataclass(frozen=True)
class Runs:
    data: Path
    base: Path
    new: Path
    zero_shot: Path

    @property
    def all(self) -> list[str]:
        return [str(self.base), str(self.new), str(self.zero_shot)]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    data = make_eurosat(tmp_path_factory.mktemp("explore-data"))
    out = tmp_path_factory.mktemp("explore-runs")
    found = Runs(data, out / "base", out / "new", out / "zs")
    run(data, found.base, *FEW, *ANALYSED, epoch=3)
    again = {"eval_only": True, "model_dir": str(found.base), "load_epoch": 3, "epoch": 3}
    run(data, found.new, *FEW, *ANALYSED, subsample_classes="new", **again)
    run(data, found.zero_shot, *ANALYSED, trainer="ZeroshotCLIP")
    return found


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures of one's own, with a class name that a browser could obey."""
    data = tmp_path_factory.mktemp("own") / "my <i>birds"
    rng = np.random.RandomState(0)
    for name in OWN_NAMES:
        (data / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.randint(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data / name / f"{i}.png")
    out = data.parent / "run"
    run(data, out, *FEW, *ANALYSED, dataset="folder", subsample_classes="all", epoch=1)
    return out
