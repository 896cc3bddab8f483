"""Runs that several tests look at."""

from pathlib import Path

import pytest

from tests.prompts.runs import CSC, train
from tests.runs import make_eurosat


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("prompts-data"))


@pytest.fixture(scope="session")
def coop(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("coop"))


@pytest.fixture(scope="session")
def cocoop(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("cocoop"), "CoCoOp")


@pytest.fixture(scope="session")
def csc(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with class-specific contexts."""
    return train(data, tmp_path_factory.mktemp("csc"), "CoOp", *CSC)
