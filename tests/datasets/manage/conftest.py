"""Complete datasets for the commands to look at."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.datasets import fixtures


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A root with complete datasets; images are hard links to a few pictures."""
    root = tmp_path_factory.mktemp("good")
    for name in ("DescribableTextures", "OxfordPets"):
        fixtures.make(name, root)
    return root


@pytest.fixture
def root(good, tmp_path):
    """A copy of `good` to break."""
    target = tmp_path / "data"
    shutil.copytree(good, target, copy_function=os.link)
    return target
