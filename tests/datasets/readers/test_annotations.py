"""Annotation files that came damaged, or that somebody made: our own error, never a crash."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from dassl.utils import DataError, UserError
from datasets.readers.annotations import class_number, read_mat, read_rows

LABELS = {"labels": np.arange(1, 21), "rows": [{"fname": "a.jpg", "class": 3}]}
WITHIN = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


def mat(**options: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, LABELS if options.get("format") != "4" else {"labels": np.arange(9)}, **options)
    return buffer.getvalue()


FORMATS = {"plain": mat(), "compressed": mat(do_compression=True), "old": mat(format="4")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_matlab_files(tmp_path, kind):
    (tmp_path / "a.mat").write_bytes(FORMATS[kind])
    assert read_mat(tmp_path / "a.mat", "labels").tolist() == list(
        range(9) if kind == "old" else range(1, 21)
    )
    if kind != "old":
        (row,) = read_mat(tmp_path / "a.mat", "rows", "fname", "class")
        assert (str(row["fname"]), int(row["class"])) == ("a.jpg", 3)
        with pytest.raises(DataError, match=r"cannot be read as a MATLAB file with 'rows'.*lacks"):
            read_mat(tmp_path / "a.mat", "rows", "box")
    with pytest.raises(DataError, match="cannot be read as a MATLAB file with 'names'"):
        read_mat(tmp_path / "a.mat", "names")


def test_a_matlab_file_that_ends_its_reader(tmp_path):
    """SciPy follows a number of bytes that is none, out of its memory."""
    content = bytearray(FORMATS["plain"])
    content[185] = 255  # of the size of the labels
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a MATLAB file"):
        read_mat(tmp_path / "a.mat", "labels")


@pytest.mark.slow
@settings(max_examples=4, **WITHIN)
@given(data=st.data())
def test_mutated_matlab_files(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from([*FORMATS.values(), b""])))
    for _ in range(data.draw(st.integers(1, 5)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.mat").write_bytes(content)
    try:
        read_mat(tmp_path / "a.mat", "labels")
    except UserError as error:
        assert "a.mat" in str(error)


@settings(max_examples=200, **WITHIN)
@given(st.binary(max_size=200), st.integers(1, 3))
def test_any_rows(tmp_path, content, fields):
    path = Path(tmp_path / "a.txt")
    path.write_bytes(content)
    try:
        assert all(len(row) == fields for row in read_rows(path, fields))
    except UserError as error:
        assert "a.txt" in str(error)


@given(st.text(max_size=30) | st.integers() | st.floats() | st.none() | st.lists(st.integers()))
def test_any_class_number(number):
    try:
        assert 0 <= class_number("a.txt", number, 10) < 10
    except UserError as error:
        assert "a.txt" in str(error)
