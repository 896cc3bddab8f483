"""CoOp on each of the fifteen datasets: base to new, through the real config files.

CoCoOp on ImageNet and its variants; on the ten others `tests/sweep/report/test_cocoop_table.py`
trains it.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from dassl.utils.results import read_records
from tests.datasets import fixtures
from tests.runs import ROOT, run

CONFIGS = {
    yaml.safe_load(path.read_text())["DATASET"]["NAME"]: path.stem
    for path in sorted((ROOT / "configs" / "datasets").glob("*.yaml"))
}
RECIPES = {"CoOp": "CoOp/vit_b16_ctxv1", "CoCoOp": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}
OPTIONS = ("DATASET.NUM_SHOTS", "1", "DATALOADER.TEST.BATCH_SIZE", "100", "USE_CUDA", "False")

pytestmark = pytest.mark.slow


N_FEW = 100  # all of ImageNet's 1,000 classes take seconds; CoCoOp, with their images, minutes


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("all")


@pytest.fixture(scope="module")
def tree(request, roots) -> tuple[str, Path]:
    root = roots / request.param
    if not root.exists():
        fixtures.make(request.param, root, per_class=1)
    return request.param, root


def make_few(name: str, root: Path) -> Path:
    """Writes the first classes of ImageNet or a variant of 1,000 classes; returns `root`."""
    folder = fixtures.make(name, root, per_class=1)
    lines = (fixtures.SHIPPED / "imagenet_classnames.txt").read_text().splitlines()[:N_FEW]
    (folder / "classnames.txt").write_text("\n".join(lines))
    kept = {*fixtures.WNIDS[:N_FEW], *map(str, range(N_FEW))}
    for image in [*folder.rglob("*.JPEG"), *folder.rglob("*.jpeg")]:
        if image.parent.name not in kept:
            image.unlink()
            image.parent.rmdir()
    return root


TRAINED = [
    *((name, "CoOp") for name in fixtures.COUNTS),
    *((name, "CoCoOp") for name in fixtures.COUNTS if name.startswith("ImageNet")),
]


@pytest.mark.parametrize(("tree", "trainer"), TRAINED, indirect=["tree"])
def test_base_to_new(trainer, tree, tmp_path):
    name, root = tree
    names = fixtures.classnames(name)
    if (name, trainer) != ("ImageNet", "CoOp") and len(names) == 1000:
        root, names = make_few(name, tmp_path / "few"), names[:N_FEW]
    flags = {"trainer": trainer, "recipe": RECIPES[trainer], "dataset": CONFIGS[name]}
    run(root, tmp_path / "base", *OPTIONS, **flags, epoch=1, train_batch_size=32)
    model = {"model_dir": str(tmp_path / "base"), "load_epoch": 1, "eval_only": True}
    run(root, tmp_path / "new", *OPTIONS, **flags, **model, subsample_classes="new")

    half = (len(names) + 1) // 2
    for subset, expected in (("base", names[:half]), ("new", names[half:])):
        (record,) = read_records(tmp_path / subset / "results.jsonl")
        assert (record["dataset"], record["classes"], record["trainer"]) == (name, subset, trainer)
        assert [entry["name"] for entry in record["per_class"]] == expected
        assert all(entry["total"] > 0 for entry in record["per_class"])
        assert math.isfinite(record["metrics"]["accuracy"])
        assert len(record["data"]["split_digest"]) == 64
        few_shot = record["data"]["few_shot"]
        assert few_shot == {} if "ImageNet" in name[:8] and name != "ImageNet" else few_shot["seed"]
