"""The loaders' benchmark compares the same images."""

from __future__ import annotations

import pytest
import torch

from benchmarks.loading import RECIPE, make_images, measure_bytes
from dassl.config import get_cfg_default


@pytest.mark.parametrize("n_workers", [0, 1])
def test_bytes(tmp_path, n_workers):
    cfg = get_cfg_default()
    cfg.merge_from_file(str(RECIPE))
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.PROCESSES = n_workers, n_workers
    items = make_images(tmp_path, 3, 250, 230)
    result = measure_bytes(cfg, items, torch.device("cpu"), n_rounds=1)
    assert result["key"] == f"bytes {n_workers}" and result["processes"] == n_workers
    assert result["in_flight_mib"] == n_workers * 64 * 3 * 224 * 224 / 2**20
    assert result["ours_images_per_s"] > 0
