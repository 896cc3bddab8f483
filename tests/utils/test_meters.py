"""Meters outside the golden cases."""

from __future__ import annotations

import pytest
import torch

from dassl.utils.meters import AverageMeter, MetricMeter


def test_tensors_are_turned_into_numbers() -> None:
    meter = MetricMeter()
    meter.update({"loss": torch.tensor(1.5, requires_grad=True), "acc": torch.tensor([50.0])})
    assert str(meter) == "loss 1.5000 (1.5000) acc 50.0000 (50.0000)"
    assert isinstance(meter.meters["loss"].sum, float)


def test_none_is_ignored_and_text_starts_empty() -> None:
    meter = MetricMeter()
    meter.update(None)
    assert str(meter) == ""


def test_something_else_than_a_dictionary() -> None:
    with pytest.raises(TypeError, match="got float; expected a dictionary"):
        MetricMeter().update(1.5)


def test_delimiter() -> None:
    meter = MetricMeter(delimiter=" | ")
    meter.update({"a": 1, "b": 2})
    assert str(meter) == "a 1.0000 (1.0000) | b 2.0000 (2.0000)"


def test_reset() -> None:
    meter = AverageMeter()
    meter.update(3.0)
    meter.reset()
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0, 0, 0, 0)
