"""Data files that mean harm: checkpoints, few-shot caches, splits, records. One sentence each."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.data.datasets import Datum
from dassl.utils import DataError, UserError, load_checkpoint, read_json
from dassl.utils.results import read_records
from dassl.utils.safe_pickle import PICKLE_DAMAGE, InertUnpickler
from datasets.few_shot import _unpickle
from datasets.readers.split_files import check_split, read_split_file
from features.store import _open_part

WITHIN = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DATUM = b"cdassl.data.datasets.base_dataset\nDatum\n"
DEEP_KEY = b"}(" + b")" + b"\x85" * 300_000 + b"K\1u."  # a tuple in a tuple in ... as a key


class Calls:
    def __init__(self, function: Callable, *args: object) -> None:
        self.how = (function, args)

    def __reduce__(self) -> tuple:
        return self.how


def pickles(target: Path) -> dict[str, bytes]:
    """Pickles that would run code, end the process, fill memory or change a class of ours."""
    calls = {
        "os.system": Calls(os.system, f"touch {target}"),
        "eval": Calls(eval, f"open({str(target)!r}, 'w')"),
        "a folder": Calls(os.mkdir, str(target)),
        "torch.load": Calls(torch.load, str(target)),
        "getattr": Calls(getattr, Datum, "__init__"),
    }
    made = {
        f"{name}, protocol {p}": pickle.dumps(c, p) for name, c in calls.items() for p in (0, 5)
    }
    return made | {
        "old opcode": b"(S'touch " + str(target).encode() + b"'\nios\nsystem\n.",
        "extension": b"\x80\x02\x82\x01.",
        "deep key": b"\x80\x02" + DEEP_KEY,
        "deep key of a set": b"\x80\x04\x8f(" + b")" + b"\x85" * 300_000 + b"\x90.",
        "deep key of a frozen set": b"\x80\x04(" + b")" + b"\x85" * 300_000 + b"\x91.",
        "deep key of an old dictionary": b"(" + b")" + b"\x85" * 300_000 + b"K\1d.",
        "large memo": b"\x80\x02Nr\xff\xff\xff\x7f0N.",
        "long text": b"\x80\x02X\xff\xff\xff\x7fabc.",
        "bytes of a petabyte": b"\x80\x05\x96" + (1 << 50).to_bytes(8, "little") + b"a.",
        "frame of a petabyte": b"\x80\x05\x95" + (1 << 50).to_bytes(8, "little") + b"a.",
        "number of 5,000 digits": b"I" + b"9" * 5000 + b"\n.",
        "class is changed": b"\x80\x02" + DATUM + b"N}X\x05\0\0\0labelK\7s\x86b.",
        "class is changed, by setstate": b"\x80\x02" + DATUM + b"}X\x05\0\0\0labelK\7sb.",
        "text": b"hello",
        "nothing": b"",
    }


def names_of_pickles() -> list[str]:
    return list(pickles(Path("x")))


@pytest.fixture(autouse=True)
def nothing_of_ours_changes():
    pickle.dumps(Datum())  # Python keeps a note in the class when this is done for the first time
    before = dict(vars(Datum))
    yield
    assert dict(vars(Datum)) == before


@pytest.mark.parametrize("name", names_of_pickles())
def test_pickles(tmp_path, name):
    target, path = tmp_path / "executed", tmp_path / "evil.pkl"
    path.write_bytes(pickles(target)[name])
    start = time.monotonic()
    for read in (_unpickle, load_checkpoint):
        with pytest.raises(UserError, match=r"evil\.pkl"):
            read(path)
    assert not target.exists() and time.monotonic() - start < 30


@pytest.mark.parametrize("name", names_of_pickles())
def test_pickles_in_a_checkpoint(tmp_path, name):
    target, path = tmp_path / "executed", tmp_path / "evil.pth.tar"
    torch.save({"state_dict": {"ctx": torch.ones(2)}}, tmp_path / "good")
    with zipfile.ZipFile(tmp_path / "good") as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            evil = info.filename.endswith("data.pkl")
            new.writestr(info.filename, pickles(target)[name] if evil else old.read(info))
    with pytest.raises(UserError, match=r"evil\.pth\.tar") as caught:
        load_checkpoint(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not target.exists()


def test_what_torch_saves_is_read(tmp_path):
    content = {
        "state_dict": torch.nn.Linear(2, 3).state_dict(),
        "optimizer": torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict(),
        "pairs": {("a", 1): torch.ones(2, dtype=torch.bool), None: [1, 2.5, (3, "x")], 2**80: b"x"},
        "shape": torch.Size([1, 2]),
        "epoch": 3,
    }
    for zipped in (True, False):
        torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=zipped)
        again = load_checkpoint(tmp_path / "a")
        assert again.keys() == content.keys() and again["shape"] == torch.Size([1, 2])
        assert torch.equal(again["pairs"]["a", 1], torch.ones(2, dtype=torch.bool))


@functools.cache
def saved(zipped: bool) -> bytes:
    """A checkpoint; the old format names tensors by where they are, and so has many lengths."""
    content = {"state_dict": {"ctx": torch.ones(4)}, "epoch": 3, "val": [1.5, None]}
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.slow
@WITHIN
@given(data=st.data(), zipped=st.booleans())
def test_mutated_checkpoints(tmp_path, data, zipped):
    path = tmp_path / "a.pth.tar"
    path.write_bytes(saved(zipped))
    flip_bytes(path, data)
    try:
        load_checkpoint(path)
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.slow
@WITHIN
@given(data=st.data(), protocol=st.integers(2, 5))
def test_mutated_few_shot_pickles(tmp_path, data, protocol):
    path = tmp_path / "a.pkl"
    items = [Datum(f"/d/{i}.jpg", i, 0, f"class {i}") for i in range(3)]
    path.write_bytes(pickle.dumps({"train": items, "val": items[:1]}, protocol))
    assert [item.impath for item in _unpickle(path)["train"]] == [
        "/d/0.jpg",
        "/d/1.jpg",
        "/d/2.jpg",
    ]
    flip_bytes(path, data)
    try:
        _unpickle(path)
    except DataError as error:
        assert str(path) in str(error)


def flip_bytes(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])


@WITHIN
@given(st.binary(max_size=200))
def test_arbitrary_pickles_are_inert(content):
    with contextlib.suppress(*PICKLE_DAMAGE, struct.error):
        InertUnpickler(io.BytesIO(content)).load()


# --- features -------------------------------------------------------------------------------------


def npy(header: str | bytes) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


BAD_FEATURES = {
    "huge": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 32)}\n"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (3, 32)}\n") + bytes(99),
    "objects within": npy("{'descr': [('a', 'O')], 'fortran_order': False, 'shape': (3,)}\n"),
    "less than nothing": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 32)}\n"),
    "brackets": npy("(" * 60_000),
    "signs": npy("-" * 9000),
    "call": npy("__import__('os').abort()"),
    "open": npy("{'descr': [('a"),
    "version": b"\x93NUMPY\x09\0" + bytes(100),
    "text": b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD_FEATURES)
def test_features(tmp_path, name):
    """They are computed again, and that is said."""
    path = tmp_path / "part.npy"
    path.write_bytes(BAD_FEATURES[name])
    assert _open_part(path) is None and not path.exists()


# --- splits and records ---------------------------------------------------------------------------

BAD_JSON = {
    "deep": "[" * 100_000,
    "deep and closed": "[" * 100_000 + "]" * 100_000,
    "deep dictionaries": '{"a":' * 100_000,
    "number of 5,000 digits": '{"train": [["x", ' + "9" * 5000 + ', "c"]]}',
    "cut short": '{"train": [["x", 1, "c"]',
    "text": "hello",
    "nothing": "",
    "binary": "\x00\x01",
    "half a character": '{"train": [["\\udc80',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json(tmp_path, name):
    path = tmp_path / "split.json"
    path.write_text(BAD_JSON[name])
    for read in (read_json, lambda p: read_split_file(p, tmp_path)):
        with pytest.raises(DataError, match=r"split\.json"):
            read(path)


def split_of(labels: list[object], tmp_path: Path) -> Path:
    rows = [[f"{i}.jpg", label, f"class {label}"] for i, label in enumerate(labels)]
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": rows, "val": [], "test": []}))
    return path


@pytest.mark.parametrize("label", [10**9, 10**18, 10**300, -1, -(10**9)])
def test_labels_that_are_no_labels(tmp_path, label):
    """A range over all labels would take minutes, and the memory of the machine."""
    path = split_of([0, 1, label], tmp_path)
    start = time.monotonic()
    with pytest.raises(
        DataError, match=r"split\.json (has no training images for label|is no split file)"
    ):
        check_split(path, read_split_file(path, tmp_path)[0])
    assert time.monotonic() - start < 5


def test_records(tmp_path):
    good = json.dumps({"trainer": "CoOp"})
    for bad in BAD_JSON.values():
        path = tmp_path / "results.jsonl"
        path.write_text(f"{good}\n{bad}\n{good}\n")
        assert len(list(read_records(path))) == 2


def test_a_split_in_a_damaged_gzip_file(tmp_path):
    path = tmp_path / "split.json.gz"
    path.write_bytes(gzip.compress(b"{}" * 1000)[:20])
    with pytest.raises(DataError, match=r"split\.json\.gz"):
        read_split_file(path, tmp_path)
