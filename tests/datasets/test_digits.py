"""The digits are written once; the run that writes them draws what the others draw."""

from __future__ import annotations

import random
from pathlib import Path

from sklearn import datasets

from datasets.digits import write_images


def test_writing_draws_nothing(tmp_path: Path, monkeypatch):
    """scikit-learn draws when it is imported, which the tests have long done: here, as it loads."""
    digits = datasets.load_digits()
    digits.images = digits.images[:10]
    monkeypatch.setattr(datasets, "load_digits", lambda: (random.random(), digits)[1])
    before = random.getstate()
    write_images(tmp_path)
    assert random.getstate() == before
    assert len(list(tmp_path.rglob("*.png"))) == 10
