"""Reads the tensors of a TorchScript archive, such as OpenAI's, without building its script.

`torch.jit.load` compiles and runs code from the file: whoever made it may write any file of the
user. Here the zip file's `data.pkl` is unpickled into inert records, and only the tensors of the
module tree are made of them; the result equals `torch.jit.load(path).state_dict()`.
"""

from __future__ import annotations

import math
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dassl.utils import CheckpointError
from dassl.utils.safe_pickle import PICKLE_DAMAGE, InertUnpickler, Record
from dassl.utils.sealed import read_member

MAX_PICKLE = 16 << 20  # bytes; those of OpenAI's archives have less than 0.2 MB
MAX_CODE = 64 << 20  # bytes of all that is compressed, unpacked; tensors are not
MAX_MODULES = 100_000  # a ViT-L/14 has 500
MAX_DEPTH = 30  # modules within modules

_DAMAGE = (*PICKLE_DAMAGE, OSError, struct.error, zlib.error, zipfile.BadZipFile)
_TENSOR = "torch._utils._rebuild_tensor_v2"
# A module's class begins with `__parameters__ = ["weight", ]` and `__buffers__ = [...]`.
_MODULE_CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:[ ].*\n)*)", re.MULTILINE)
_STATE = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)
_QUOTED = re.compile(r'"([^"]+)"')
_DTYPES = {
    "torch.HalfStorage": torch.float16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


def is_jit_archive(path: Path) -> bool:
    """Returns whether a file is a zip file with constants beside the data.

    Raises:
        CheckpointError: it is a damaged zip file.
    """
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as file:
            return any(name.endswith("/constants.pkl") for name in file.namelist())
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is damaged: {_reason(error)}") from None


def read_jit_archive(path: Path) -> dict[str, Tensor]:
    """Returns the state dict of the module in a TorchScript archive; no code in it is run.

    Raises:
        CheckpointError: the archive is damaged, or not laid out as torch lays it out.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _Archive(file, path.stat().st_size).state_dict()
    except CheckpointError:
        raise
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is a damaged JIT archive: {_reason(error)}") from None


class _Archive:
    """The members of an open archive.

    Args:
        file: the zip file.
        size: its bytes.
    """

    def __init__(self, file: zipfile.ZipFile, size: int) -> None:
        names = file.namelist()
        if len(set(names)) < len(names):
            raise ValueError("two members have one name")
        if sum(info.file_size for info in file.infolist()) > size + MAX_CODE:
            raise ValueError("its members would unpack to more than they should")
        self.file = file
        self.root = names[0].partition("/")[0]
        self.n_modules = 0
        self._classes: dict[str, dict[str, set[str]]] = {}
        self._storages: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Tensor]:
        if self._has("byteorder") and self._read("byteorder").decode() != sys.byteorder:
            raise ValueError("it was written by a machine with another order of bytes")
        if self.file.getinfo(f"{self.root}/data.pkl").file_size > MAX_PICKLE:
            raise ValueError(f"its data.pkl has more than {MAX_PICKLE:,} bytes")
        module = _Unpickler(BytesIO(self._read("data.pkl"))).load()
        return {key: self._tensor(record) for key, record in self._tensors(module)}

    def _tensors(
        self, module: Record, prefix: str = "", depth: int = 0
    ) -> Iterator[tuple[str, Record]]:
        """Yields what torch counts as parameters and buffers, in torch's order."""
        self.n_modules += 1
        if depth > MAX_DEPTH or self.n_modules > MAX_MODULES:
            raise ValueError("it holds more modules than any CLIP")
        in_state_dict = self._names_in_state_dict(module.name)
        if in_state_dict is None:
            return
        children = {k: v for k, v in module.state.items() if isinstance(v, Record)}
        for name, child in children.items():
            if child.name == _TENSOR and name in in_state_dict:
                yield prefix + name, child
        for name, child in children.items():
            if child.name.startswith("__torch__."):
                yield from self._tensors(child, f"{prefix}{name}.", depth + 1)

    def _names_in_state_dict(self, class_name: str) -> set[str] | None:
        """Returns a module's parameters and buffers; None: the class is no module's.

        They are read from the archive's code, as text.
        """
        place, _, cls = class_name.rpartition(".")
        if place not in self._classes:
            code = self._read(f"code/{place.replace('.', '/')}.py").decode()
            self._classes[place] = {
                cls: {name for names in _STATE.findall(body) for name in _QUOTED.findall(names)}
                for cls, body in _MODULE_CLASS.findall(code)
            }
        return self._classes[place].get(cls)

    def _tensor(self, record: Record) -> Tensor:
        storage, offset, size, stride, *_ = record.args
        if storage.key not in self._storages:
            content = bytearray(self._read(f"data/{storage.key}"))  # torch wants to write to it
            self._storages[storage.key] = (
                torch.frombuffer(content, dtype=storage.dtype)
                if content
                else torch.empty(0, dtype=storage.dtype)
            )
        values = self._storages[storage.key]
        if values.dtype != storage.dtype or math.prod(size) > len(values):
            raise ValueError(f"a tensor does not fit its storage {storage.key}")
        return values.as_strided(size, stride, offset)  # looks after the bounds

    def _has(self, name: str) -> bool:
        return f"{self.root}/{name}" in self.file.NameToInfo

    def _read(self, name: str) -> bytes:
        return read_member(self.file, f"{self.root}/{name}")


# --- the pickle -----------------------------------------------------------------------------------


class _Storage:
    """Names a member of the archive that holds a tensor's numbers."""

    def __init__(self, kind: str, cls: type[Record], key: str, *_: Any) -> None:
        if kind != "storage":
            raise ValueError(f"{kind!r} is no storage")
        self.dtype = _DTYPES[cls.name]
        self.key = str(key)


class _Unpickler(InertUnpickler):
    def persistent_load(self, pid: tuple) -> _Storage:
        return _Storage(*pid)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{text[:200]}" if text else type(error).__name__
