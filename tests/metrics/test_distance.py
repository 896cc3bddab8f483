"""Distance matrices against torch.cdist and cosine_similarity."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dassl.metrics import compute_distance_matrix


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 7, generator=generator), torch.randn(3, 7, generator=generator)


def test_euclidean_is_squared(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    distance = compute_distance_matrix(*rows)
    torch.testing.assert_close(distance, torch.cdist(*rows) ** 2)


def test_cosine(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    similarity = F.cosine_similarity(rows[0][:, None], rows[1][None], dim=2)
    torch.testing.assert_close(compute_distance_matrix(*rows, metric="cosine"), 1 - similarity)


def test_equal_rows_are_not_below_zero(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    distance = compute_distance_matrix(1e3 * rows[0], 1e3 * rows[0])
    assert distance.min() >= 0


def test_unknown_metric(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"metric is 'cosin'; .* Did you mean 'cosine'\?"):
        compute_distance_matrix(*rows, metric="cosin")


@pytest.mark.parametrize("shape", [(7,), (3, 6)])
def test_shapes_that_do_not_fit(
    rows: tuple[torch.Tensor, torch.Tensor], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="the same D"):
        compute_distance_matrix(rows[0], torch.zeros(shape))
