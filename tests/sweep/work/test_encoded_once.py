"""A sweep encodes each test image once, whatever the methods, seeds and classes that ask for it."""

from pathlib import Path

import pytest

from dassl.utils.results import read_records
from sweep.plan.request import Request
from sweep.work.execute import Job, execute

REQUEST = Request(
    "base2new",
    trainers=("ZeroshotCLIP", "CoOp", "CoCoOp"),
    datasets=("digits",),
    seeds=(1, 2, 3),
    shots=(1,),
    opts=("OPTIM.MAX_EPOCH", "1"),
)


@pytest.mark.slow
def test_each_test_image_is_encoded_once(tmp_path: Path):
    store = ("MODEL.FEATURES.FOLDER", str(tmp_path / "features"))
    records = []
    for run in REQUEST.runs():
        outcome = execute(Job(run, tmp_path / "out", str(tmp_path / "data"), extra=store))
        assert outcome.state == "done", outcome.error
        records += read_records(run.folder(tmp_path / "out") / "results.jsonl")
    whole = max(record["total"] for record in records)  # all classes: each image there is
    methods = {(r["trainer"], r["seed"], r["classes"]) for r in records}
    assert len(methods) == len(records) == 3 + 2 * 3 * 3, "zero-shot has one seed"
    assert sum(record["images_encoded"] for record in records) == whole
    assert sum(record["total"] for record in records) == whole * 7 * 2
