"""A root that does not exist is never created by a typo; what is missing comes with a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from dassl.utils import MissingFileError
from datasets.readers.roots import download_command, make_default_root, require_root
from tests.datasets.build import build


def test_a_typo_is_named_with_the_nearest_folder(tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(MissingFileError, match="does not exist") as error:
        require_root(tmp_path / "pictrues")
    assert "Did you mean 'pictures'?" in str(error.value)
    assert str(error.value).endswith(f"\n  mkdir -p {tmp_path / 'pictrues'}")


def test_a_file_is_no_root(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(MissingFileError, match="file, which is no folder"):
        require_root(tmp_path / "file")


@pytest.mark.parametrize("name", ["dta", "dta/data", "Data"])
def test_digits_create_no_root_but_data(name: str, tmp_path: Path):
    with pytest.raises(MissingFileError, match="does not exist"):
        build("Digits", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_default_root_is_made(tmp_path: Path):
    make_default_root(tmp_path / "data")
    assert (tmp_path / "data").is_dir()


def test_the_command_that_downloads(tmp_path: Path):
    with pytest.raises(MissingFileError, match="was looked for in") as error:
        build("EuroSAT", tmp_path)
    assert str(error.value).endswith(f"\n  python -m datasets download EuroSAT --root {tmp_path}")
    assert download_command("MyBirds", tmp_path) == "", "nobody knows from where"
