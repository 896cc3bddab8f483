"""Files of `torch.save` that carry a checksum of themselves, so that one changed bit is noticed.

The checksum stands in the comment at the end of the zip archive that `torch.save` writes, which
every reader passes over. Files of other programs have none: there, the checksums of the archive's
members are tested, which cover all tensors and all plain data.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from dassl.utils.errors import CheckpointError
from dassl.utils.files import PathLike, write_atomically

_TAG = b"sha256:"
_LENGTH = len(_TAG) + 64  # of the comment
_END_RECORD = 22  # bytes of a zip's end record, whose last two are the length of the comment
_CHUNK = 2**20


def save_sealed(content: Any, fpath: PathLike) -> None:
    """Writes what `torch.save` writes, with a checksum, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(-2, io.SEEK_END)
    buffer.write(struct.pack("<H", _LENGTH))
    seal = _TAG + hashlib.sha256(buffer.getbuffer()).hexdigest().encode()

    def write(part: str) -> None:
        with Path(part).open("wb") as file:
            file.write(buffer.getbuffer())
            file.write(seal)

    write_atomically(fpath, write)


def check_seal(fpath: PathLike) -> None:
    """Raises CheckpointError if a file of `torch.save` is not what was written.

    Files in the format before PyTorch 1.6 carry no checksum of any kind and pass.
    """
    path = Path(fpath)
    size = path.stat().st_size
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
        file.seek(max(0, size - _LENGTH))
        end = file.read()
        if end.startswith(_TAG):
            if _sha256(file, size - _LENGTH) != end[len(_TAG) :].decode(errors="replace"):
                raise CheckpointError(f"{path} is damaged: its checksum does not fit its content")
        elif is_zip:
            _check_members(path, end)


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns what a member of a zip file holds; its checksum is tested.

    `ZipFile.read` unpacks all that is there, however little the table of contents promises.

    Raises:
        ValueError: it is packed in a way that only unpacks as a whole.
        zipfile.BadZipFile, KeyError, ...: it is damaged, or there is none.
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in a way that torch never packs")
    with archive.open(info) as member:
        return member.read(info.file_size)


def _sha256(file: IO[bytes], size: int) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def _check_members(path: Path, end: bytes) -> None:
    if end[-_END_RECORD:][:4] != b"PK\5\6":
        raise CheckpointError(f"{path} is damaged: it is cut short, or its end was changed")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type for member in archive.infolist()):
                raise CheckpointError(f"{path} is no file of torch.save: its members are packed")
            broken = archive.testzip()
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if broken is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of {broken} does not fit")
