"""Runs that several tests look at: made once, and never changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.prompts.runs import METHODS, train
from tests.runs import make_eurosat

Trained = Callable[[str], Path]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("prompts-data"))


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Returns the folder of a method's run, which has its predictions, too."""
    made: dict[str, Path] = {}

    def folder(method: str) -> Path:
        if method not in made:
            out = tmp_path_factory.mktemp("runs") / method
            made[method] = train(data, out, method, "TEST.ERROR_ANALYSIS", "True")
        return made[method]

    return folder


@pytest.fixture(scope="session", params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """One after the other; what is tested of one stands together."""
    return request.param


@pytest.fixture(scope="session")
def coop(trained: Trained) -> Path:
    return trained("CoOp")


@pytest.fixture(scope="session")
def cocoop(trained: Trained) -> Path:
    return trained("CoCoOp")


@pytest.fixture(scope="session")
def csc(trained: Trained) -> Path:
    """A run with class-specific contexts."""
    return trained("CoOp, class-specific")
