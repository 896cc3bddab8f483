"""Files of torch.save: a changed bit is noticed, in ours and in those of other programs."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
import torch

from dassl.utils import CheckpointError, load_checkpoint
from dassl.utils.checkpoint import newest_checkpoint
from dassl.utils.sealed import check_seal, save_sealed

CONTENT = {"state_dict": {"ctx": torch.arange(12.0).view(3, 4)}, "epoch": 3, "note": "x" * 200}


def flipped(content: bytes, position: int, bit: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :]


def test_the_public_way_of_loading_reads_it(tmp_path: Path):
    save_sealed(CONTENT, tmp_path / "a.pt")
    for mmap in (False, True):
        loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)
        assert torch.equal(loaded["state_dict"]["ctx"], CONTENT["state_dict"]["ctx"])
    assert load_checkpoint(str(tmp_path / "a.pt"))["epoch"] == 3


def test_every_single_bit_is_noticed(tmp_path: Path):
    path = tmp_path / "a.pt"
    save_sealed(CONTENT, path)
    good = path.read_bytes()
    draw = random.Random(0)
    places = {*range(40), *range(len(good) - 120, len(good)), *draw.sample(range(len(good)), 300)}
    for position in places:
        path.write_bytes(flipped(good, position, draw.randrange(8)))
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(str(path))


@pytest.mark.parametrize("length", [0, 1, 21, 100, -1, -75])
def test_cut_short_or_longer(tmp_path: Path, length: int):
    path = tmp_path / "a.pt"
    save_sealed(CONTENT, path)
    good = path.read_bytes()
    for content in (good[:length], good + b"x"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(str(path))


def test_files_of_other_programs(tmp_path: Path):
    """They load as ever; a bit of what they hold is covered by the archive's own checksums."""
    path = tmp_path / "theirs.pt"
    torch.save(CONTENT, path)
    good = path.read_bytes()
    assert load_checkpoint(str(path))["epoch"] == 3
    values = good.index(struct.pack("<3f", 0.0, 1.0, 2.0))
    for position in (values, values + 5, good.index(b"xxxx")):
        path.write_bytes(flipped(good, position, 2))
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(str(path))


def test_files_in_the_old_format_load(tmp_path: Path):
    path = tmp_path / "old.pt"
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)
    check_seal(path)
    assert load_checkpoint(str(path))["epoch"] == 3


def test_arbitrary_bytes(tmp_path: Path):
    path, draw = tmp_path / "a.pt", random.Random(0)
    for size in (0, 1, 2, 30, 1000):
        for start in (b"", b"PK\3\4", b"\x80\x02"):
            path.write_bytes(start + draw.randbytes(size))
            with pytest.raises(CheckpointError):
                load_checkpoint(str(path))


def run_folder(tmp_path: Path) -> Path:
    for epoch in (2, 9, 10):
        save_sealed({**CONTENT, "epoch": epoch}, tmp_path / f"model.pth.tar-{epoch}")
    (tmp_path / "checkpoint").write_text("model.pth.tar-10\n")
    return tmp_path


@pytest.mark.parametrize("pointer", [None, b"", b"\xff\xfe", b"model.pth.tar-7\n", b"a\0b", b"."])
def test_pointer_missing_or_damaged(tmp_path: Path, caplog, pointer: bytes | None):
    folder = run_folder(tmp_path)
    (folder / "checkpoint").unlink() if pointer is None else (folder / "checkpoint").write_bytes(
        pointer
    )
    assert newest_checkpoint(folder)[1]["epoch"] == 10
    assert "Note:" in caplog.text


def test_newest_damaged_the_one_before_is_used(tmp_path: Path, caplog):
    folder = run_folder(tmp_path)
    path = folder / "model.pth.tar-10"
    path.write_bytes(flipped(path.read_bytes(), 700, 3))
    assert newest_checkpoint(folder)[1]["epoch"] == 9
    assert "model.pth.tar-10 is damaged" in caplog.text
    for path in folder.glob("model*"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        newest_checkpoint(folder)
