"""What is part of a run's identity: what changes a number, and nothing else."""

import pytest

from sweep.plan.run import Run


def digest(*opts: str) -> str:
    return Run("CoOp", "eurosat", "CoOp/vit_b16_ctxv1", 16, "base", 1, opts).digest


@pytest.mark.parametrize(
    "opts",
    [
        ("DATALOADER.PROCESSES", "1"),
        ("DATALOADER.PROCESSES", "2"),
        ("MODEL.TEXT_CHUNK", "7"),
        ("TRAIN.CHECKPOINT_FREQ", "1"),
    ],
)
def test_what_changes_no_number_is_no_part_of_it(opts: tuple[str, str]):
    assert digest(*opts) == digest()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_streams_that_draw_are_part_of_it(workers: str):
    assert digest("DATALOADER.NUM_WORKERS", workers) != digest()
