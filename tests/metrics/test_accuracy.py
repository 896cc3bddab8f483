"""Top-k accuracy outside the golden cases."""

from __future__ import annotations

import pytest
import torch

from dassl.metrics import compute_accuracy

LOGITS = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]])
TARGET = torch.tensor([0, 2, 1])


def test_k_above_the_number_of_classes_counts_all() -> None:
    top1, top2, top5 = compute_accuracy(LOGITS, TARGET, topk=(1, 2, 5))
    assert top1.item() == pytest.approx(100 / 3)
    assert top2.item() == pytest.approx(200 / 3)
    assert top5.item() == 100.0


def test_order_of_topk_is_kept() -> None:
    top2, top1 = compute_accuracy(LOGITS, TARGET, topk=(2, 1))
    assert top2 > top1


@pytest.mark.parametrize("wrap", [tuple, list])
def test_first_of_several_outputs_is_scored(wrap: type) -> None:
    (accuracy,) = compute_accuracy(wrap([LOGITS, torch.zeros(3, 9)]), TARGET)
    assert accuracy.item() == pytest.approx(100 / 3)


def test_half_precision_scores_are_counted_in_single_precision() -> None:
    logits = torch.zeros(3001, 2, dtype=torch.float16)  # float16 cannot hold 3001
    logits[:, 0] = 1
    (accuracy,) = compute_accuracy(logits, torch.zeros(3001, dtype=torch.long))
    assert accuracy.item() == pytest.approx(100.0, rel=1e-6)


def test_empty_batch() -> None:
    with pytest.raises(ValueError, match="empty batch"):
        compute_accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


def test_k_below_one() -> None:
    with pytest.raises(ValueError, match=r"topk is \(0, 1\)"):
        compute_accuracy(LOGITS, TARGET, topk=(0, 1))
