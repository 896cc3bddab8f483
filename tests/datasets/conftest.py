"""Fixtures of all tests of datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets import fixtures


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch) -> Path:
    """No test leaves anything in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def eurosat(tmp_path) -> Path:
    """A root with three images a class and part of EuroSAT, and a split file beside them."""
    fixtures.make("EuroSAT", tmp_path / "data", per_class=3)
    return tmp_path / "data"
