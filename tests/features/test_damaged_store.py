"""Any bytes in the store: what they held is computed again, and no other numbers come out."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.utils.files import file_state
from features.__main__ import main
from features.keys import _weights_digest
from features.store import make_id
from tests.features.test_store import Computed, expected, fetch, ids, opened

N = 5
FEW = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def file_of(folder: Path) -> Path:
    """The one file of a store that was filled."""
    fetch(opened(folder), ids(N), Computed())
    (path,) = folder.glob("space/*.npy")
    return path


def arrays(*found: np.ndarray) -> bytes:
    file = io.BytesIO()
    for array in found:
        np.save(file, array)
    return file.getvalue()


def check(folder: Path) -> None:
    again = Computed()
    assert np.array_equal(fetch(opened(folder), ids(N), again), expected(N))
    assert again.asked == list(range(N))
    kept = Computed()
    assert np.array_equal(fetch(opened(folder), ids(N), kept), expected(N))
    assert kept.asked == []


@pytest.mark.slow
@FEW
@given(data=st.data())
def test_any_bytes(data: st.DataObject, tmp_path: Path):
    shutil.rmtree(tmp_path / "space", ignore_errors=True)
    path = file_of(tmp_path)
    good = path.read_bytes()
    start = data.draw(st.integers(0, len(good) - 1))
    changed = good[:start] + data.draw(st.binary(max_size=40)) + good[start + 1 :]
    content = data.draw(
        st.sampled_from([changed, good[:start], data.draw(st.binary(max_size=200))])
    )
    if content != good:
        path.write_bytes(content)
        check(tmp_path)


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


ID_ROWS = np.zeros((N, 16), np.uint8)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        header("(1152921504606846976, 16)", "|u1"),
        header("(274877906944, 16)", "|u1"),
        header("(-1, 16)", "|u1"),
        header("(0, 16)", "|u1") + header("(0, 4)"),
        arrays(ID_ROWS) + header("(5, 1152921504606846976)"),
        arrays(ID_ROWS) + header("(5, 0)"),
        arrays(ID_ROWS) + header("(5, 4)"),
        arrays(ID_ROWS, np.zeros((N, 2), np.float64)),
        arrays(ID_ROWS, np.zeros((N + 1, 2), np.float32)),
        arrays(ID_ROWS, np.full((N, 2), np.nan, np.float32)),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x03\x00\x10\x00\x00\x00" + b"\xff" * 16,
        b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').abort()       \n",
    ],
    ids=range(15),
)
def test_files_that_lie(content: bytes, tmp_path: Path):
    path = file_of(tmp_path)
    path.write_bytes(content)
    check(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe"])
def test_something_else_in_its_place(kind: str, tmp_path: Path):
    path = file_of(tmp_path)
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        os.mkfifo(path)
    again = Computed()
    assert np.array_equal(fetch(opened(tmp_path), ids(N), again), expected(N))
    main(["status", "--folder", str(tmp_path)])
    main(["clear", "--folder", str(tmp_path)])


def test_the_space_is_a_file(tmp_path: Path):
    (tmp_path / "space").write_text("in the way")
    assert np.array_equal(fetch(opened(tmp_path), ids(N), Computed()), expected(N))


def test_a_link_that_leads_elsewhere_now(tmp_path: Path):
    """Of equal size and time of writing: another id all the same."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    os.utime(tmp_path / "two", ns=(0, (tmp_path / "one").stat().st_mtime_ns))
    link = tmp_path / "link"
    link.symlink_to("one")
    before = make_id(*file_state(link))
    link.unlink()
    link.symlink_to("two")
    assert make_id(*file_state(link)) != before


def test_weights_of_the_same_sizes_are_another_space():
    first, second = (torch.nn.Linear(3, 2) for _ in range(2))
    assert _weights_digest(first) != _weights_digest(second)
    before = _weights_digest(first)
    with torch.no_grad():
        first.weight[0, 0] += 1
    assert _weights_digest(first) != before
