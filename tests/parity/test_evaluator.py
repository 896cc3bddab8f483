"""Evaluator, top-k accuracy and meters against the golden numbers (golden/README.md)."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy
from dassl.utils.meters import AverageMeter, MetricMeter

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "evaluator.json").read_text(encoding="utf-8")
)
CASES = GOLDEN["cases"]


def evaluator_cfg(case: dict[str, Any], output_dir: Path) -> CfgNode:
    test = {
        "EVALUATOR": "Classification",
        "PER_CLASS_RESULT": case["per_class"],
        "COMPUTE_CMAT": case["compute_cmat"],
    }
    return CfgNode({"VERBOSE": True, "OUTPUT_DIR": str(output_dir), "TEST": test})


def logits_of(case: dict[str, Any]) -> torch.Tensor:
    """-1 everywhere, 2 + 0.01 i at the prediction of item i (golden/README.md)."""
    logits = torch.full((len(case["y_pred"]), case["n_classes"]), -1.0)
    for i, label in enumerate(case["y_pred"]):
        logits[i, label] = 2 + 0.01 * i
    return logits


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['name']}-{c['per_class']}")
def test_classification(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = dict(enumerate(case["class_names"]))
    evaluator = build_evaluator(evaluator_cfg(case, tmp_path), lab2cname=names)
    assert capsys.readouterr().out.splitlines() == case["printed_on_build"]

    logits, labels = logits_of(case), torch.tensor(case["y_true"])
    for batch in zip(logits.split(case["batch_size"]), labels.split(case["batch_size"])):
        evaluator.process(*batch)
    results = evaluator.evaluate()

    assert type(results) is OrderedDict
    assert list(results) == case["keys"]
    assert all(isinstance(value, float) for value in results.values())
    for key, value in case["values"].items():
        assert results[key] == pytest.approx(value, rel=1e-9, abs=1e-9), key
    printed = capsys.readouterr().out.replace(str(tmp_path), "<OUTPUT_DIR>").splitlines()
    assert printed == case["printed"]
    if case["compute_cmat"]:
        matrix = torch.load(tmp_path / "cmat.pt", weights_only=True)
        assert matrix.dtype == torch.float64
        np.testing.assert_allclose(matrix, case["cmat"]["values"], rtol=1e-9, atol=0)


def test_compute_accuracy() -> None:
    golden = GOLDEN["compute_accuracy"]
    result = compute_accuracy(
        torch.tensor(golden["logits"]), torch.tensor(golden["target"]), golden["topk"]
    )
    assert [tuple(value.shape) for value in result] == [(1,)] * len(golden["topk"])
    assert [value.item() for value in result] == pytest.approx(golden["result"], rel=1e-9)


def test_metric_meter() -> None:
    meter = MetricMeter()
    strings = []
    for update in GOLDEN["meters"]["metric_updates"]:
        meter.update(update)
        strings.append(str(meter))
    assert strings == GOLDEN["meters"]["metric_strings"]


def test_moving_average() -> None:
    meter = AverageMeter(ema=True)
    averages = []
    for value in GOLDEN["meters"]["ema_inputs"]:
        meter.update(value)
        averages.append(meter.avg)
    assert averages == pytest.approx(GOLDEN["meters"]["ema_avg"], rel=1e-9)


def test_weighted_average() -> None:
    meter = AverageMeter()
    rows = []
    for value, n in GOLDEN["meters"]["weighted_inputs"]:
        meter.update(value, n)
        rows.append([meter.val, meter.avg, meter.sum, meter.count])
    assert rows == GOLDEN["meters"]["weighted_val_avg_sum_count"]
