"""Unpacking archives that we did not make: no member may leave the folder or fill the disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import IO, NoReturn

from dassl.utils.bars import bar
from dassl.utils.errors import DataError, UserError
from dassl.utils.files import PathLike

MAX_RATIO = 100  # bytes out of a byte in; photographs give about 1, annotations up to 30
FREE_SIZE = 1 << 28  # bytes that any archive may unpack to, whatever the ratio
BYTES_A_MEMBER = 1024  # fewer on average means no images; EuroSAT has 3,500, ImageNet 110,000
FREE_MEMBERS = 20_000  # that any archive may hold, whatever its size
MAX_HEADER = 1 << 20  # bytes between the contents of two members of a tar archive
MAX_DEPTH = 50  # folders within folders
_CHUNK = 1 << 20  # bytes
_ON_WINDOWS = os.name == "nt"
# There, CON.jpg is the console, and a dot or a blank at the end is left out: "a." is "a".
_WINDOWS_NAME = re.compile(
    r"(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])\s*(\..*)?|.+[. ]",
    re.IGNORECASE,
)

# What Python's modules raise for archives that are damaged, or of a kind that they do not know.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, gzip.BadGzipFile),
    *(EOFError, RuntimeError, ValueError, LookupError, struct.error, MemoryError, OverflowError),
    *(TypeError, AttributeError),
)


class UnpackError(UserError, OSError):
    """An archive could not be written out."""


def extract(archive: PathLike, folder: PathLike) -> None:
    """Unpacks a zip or tar archive (plain, gzip, bzip2, xz) into `folder`.

    Contents are written, owners, permissions and times are not. A link becomes another name of its
    file, which has to stand in the archive before it. The archive is read to its last byte, so that
    its checksums are tested.

    Raises:
        DataError: the archive is damaged or of an unknown kind; it has absurdly many members or
            bytes; a member is a device, has an absolute path, points outside, or comes twice.
        UnpackError: the folder cannot be written, or has too little room.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        if not archive.is_file():
            raise DataError(f"{archive} is no file")
        kind = _kind(archive)
        if kind == "":
            raise DataError(f"{archive} is neither a zip nor a tar archive")
        folder.mkdir(parents=True, exist_ok=True)
        out = _Output(archive, folder)
        _extract_zip(archive, out) if kind == "zip" else _extract_tar(archive, kind, out)
    except UserError:
        raise
    except _DAMAGE as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage as an OSError without a number
            raise _damaged(archive, error) from None
        raise UnpackError(f"{archive} cannot be unpacked to {folder}: {error}") from None


def _damaged(archive: Path, error: BaseException) -> DataError:
    reason = str(error) or type(error).__name__
    return DataError(f"{archive} cannot be unpacked: {reason}; delete it and fetch it anew")


def _kind(archive: Path) -> str:
    """Returns zip, gz, bz2, xz, tar or ""; `tarfile.is_tarfile` would read the first header."""
    with archive.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    for mark, kind in ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\0", "xz")):
        if head.startswith(mark):
            return kind
    # Tar first: a tar archive that ends in a zip file would pass for a zip archive.
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        return "tar"
    except (tarfile.TarError, *_DAMAGE):
        return "zip" if zipfile.is_zipfile(archive) else ""


# --- what comes out -------------------------------------------------------------------------------


class _Output:
    """The folder that an archive is unpacked to, and all that was written there so far."""

    def __init__(self, archive: Path, folder: Path) -> None:
        size = archive.stat().st_size
        self.archive = archive
        self.folder = folder
        self.max_bytes = max(MAX_RATIO * size, FREE_SIZE)
        self.max_members = FREE_MEMBERS + size // BYTES_A_MEMBER
        self.size = size
        self.n_bytes = 0
        self.n_members = 0
        self._folds_case = _folds_case(folder)
        self._files: dict[str, str] = {}  # names as the file system compares them, and as given
        self._folders: dict[str, str] = {}

    def refuse(self, reason: str) -> NoReturn:
        raise DataError(f"{self.archive} is not unpacked: {reason}")

    def place(self, name: str) -> str:
        """Returns a member's name relative to the folder; raises DataError where it leaves it."""
        parts = name.replace("\\", "/")
        normal = posixpath.normpath(parts)
        drive = name[1:2] == ":" or (_ON_WINDOWS and ":" in name)
        if parts.startswith("/") or normal.split("/")[0] == ".." or drive or "\0" in name:
            self.refuse(f"{name} would leave {self.folder}")
        if _ON_WINDOWS and any(map(_WINDOWS_NAME.fullmatch, normal.split("/"))):
            self.refuse(f"{name} is another file, or a device, on Windows")
        if normal.count("/") > MAX_DEPTH:
            self.refuse(f"{name[:80]}... lies more than {MAX_DEPTH} folders deep")
        return normal

    def count(self, n_members: int, n_bytes: int) -> None:
        """Counts what is about to be written, and refuses more than the archive can mean."""
        self.n_members += n_members
        self.n_bytes += n_bytes
        self.bound(self.n_bytes)
        if self.n_members > self.max_members:
            self.refuse(
                f"it has {self.size:,} bytes, but more than {self.max_members:,} members. If you "
                "trust it, unpack it by hand."
            )
        free = shutil.disk_usage(self.folder).free
        if n_bytes > free:
            raise UnpackError(
                f"{self.archive} cannot be unpacked to {self.folder}: {n_bytes / 1e9:.1f} GB are "
                f"to be written, {free / 1e9:.1f} GB are free"
            )

    def bound(self, n_bytes: int) -> None:
        if n_bytes > self.max_bytes:
            self.refuse(
                f"its {self.size:,} bytes would become more than {self.max_bytes:,}. If you trust "
                "it, unpack it by hand."
            )

    def add_folder(self, name: str) -> Path:
        """Makes a folder and those around it, unless they are there."""
        path = "" if name == "." else name
        for i, letter in enumerate(f"{path}/"):
            if letter != "/" or i == 0:
                continue
            key = self._key(path[:i])
            if key in self._files or self._folders.setdefault(key, path[:i]) != path[:i]:
                self._refuse_twice(path[:i])
        place = self.folder / path
        place.mkdir(parents=True, exist_ok=True)
        return place

    def add_file(self, name: str, size: int, source: IO[bytes]) -> None:
        """Writes a file of `size` bytes."""
        with self._new_file(name).open("xb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
            if file.tell() != size:
                raise EOFError(f"{name} has {file.tell():,} bytes, not {size:,}")

    def add_link(self, name: str, target: str) -> None:
        """Gives a file that was written before another name."""
        given = self._files.get(self._key(self.place(target)))
        if given is None:
            self.refuse(f"{name} is a link to {target}, which is no file that comes before it")
        source = self.folder / given
        self.count(0, source.stat().st_size)
        path = self._new_file(name)
        try:
            os.link(source, path)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, path)

    def _new_file(self, name: str) -> Path:
        key = self._key(name)
        if name == "." or key in self._files or key in self._folders:
            self._refuse_twice(name)
        path = self.add_folder(posixpath.dirname(name) or ".") / posixpath.basename(name)
        path.unlink(missing_ok=True)  # of an earlier time; it may be a link to somewhere else
        self._files[key] = name
        return path

    def _key(self, name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold() if self._folds_case else name

    def _refuse_twice(self, name: str) -> NoReturn:
        key = self._key(name)
        first = self._files.get(key) or self._folders.get(key, name)
        also = f" (also as {first})" if first != name else ""
        self.refuse(f"{name} comes twice{also}")


def _folds_case(folder: Path) -> bool:
    """Returns whether a file system takes a and A for one name, as on Windows and macOS."""
    probe = folder / ".Case-Probe"
    probe.touch()
    try:
        return probe.with_name(".cASE-pROBE").exists()
    finally:
        probe.unlink()


# --- zip ------------------------------------------------------------------------------------------


def _extract_zip(archive: Path, out: _Output) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:  # all of them, before anything is written
            out.place(member.filename)
            mode = stat.S_IFMT(member.external_attr >> 16)  # of the Unix that made it, else 0
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                out.refuse(f"{member.filename} is no plain file")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # zipfile unpacks others as a whole into memory: some bytes become gigabytes.
                out.refuse(f"{member.filename} is packed in a way that zip files rarely are")
        out.count(len(members), sum(member.file_size for member in members))
        for member in bar(f"unpacking {archive.name}", members, unit="files"):
            _extract_zip_member(file, member, out)


def _extract_zip_member(file: zipfile.ZipFile, member: zipfile.ZipInfo, out: _Output) -> None:
    name = out.place(member.filename)
    if member.filename.endswith(("/", "\\")):
        out.add_folder(name)
        return
    with file.open(member) as source:  # tests the CRC when it comes to the end
        if stat.S_ISLNK(member.external_attr >> 16):
            target = os.fsdecode(source.read(_CHUNK))
            out.add_link(name, posixpath.join(posixpath.dirname(name), target))
        else:
            out.add_file(name, member.file_size, source)


# --- tar ------------------------------------------------------------------------------------------


class _TarStream:
    """An unpacked tar archive as `tarfile` reads it, which believes every size in a header.

    Attributes:
        allowed: bytes that may be read until this is set again.
        last: what was read last.
    """

    def __init__(self, file: IO[bytes], out: _Output) -> None:
        self._file = file
        self._out = out
        self.allowed = 0
        self.last = b""

    def read(self, n: int) -> bytes:
        self.allowed -= n
        if n < 0 or self.allowed < 0:
            raise tarfile.ReadError("a header is larger than any header is")
        self.last = self._file.read(n)
        self._out.bound(self._file.tell())
        return self.last

    def seek(self, position: int) -> int:
        self._out.bound(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


def _extract_tar(archive: Path, kind: str, out: _Output) -> None:
    # A compressed archive shows its members only as it is unpacked: each is judged on the way.
    opened = {"tar": open, "gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}[kind](archive, "rb")
    with opened as file, bar(f"unpacking {archive.name}", unit="files") as files:
        stream = _TarStream(file, out)
        stream.allowed = MAX_HEADER
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (member := _next(tar, stream)) is not None:
                stream.allowed = member.size + MAX_HEADER
                _extract_tar_member(tar, member, out)
                files.update()
        _require_end(stream, file, out)


def _next(tar: tarfile.TarFile, stream: _TarStream) -> tarfile.TarInfo | None:
    stream.allowed = MAX_HEADER
    member = tar.next()
    tar.members, tar.pax_headers = [], {}  # they would be kept, of each of a million members
    return member


def _extract_tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo, out: _Output) -> None:
    name = out.place(member.name)
    out.count(1, member.size)
    if member.isdir():
        out.add_folder(name)
    elif member.issym():
        out.add_link(name, posixpath.join(posixpath.dirname(name), member.linkname))
    elif member.islnk():
        out.add_link(name, member.linkname)
    elif member.isreg() and not member.issparse():
        source = tar.extractfile(member)
        assert source is not None  # it is a regular file
        out.add_file(name, member.size, source)
    else:
        out.refuse(f"{member.name} is no plain file")


def _require_end(stream: _TarStream, file: IO[bytes], out: _Output) -> None:
    """Reads the rest, which tests checksums, and raises where it is not the end of an archive.

    `tarfile` stops at the first header that is damaged, as if the archive ended there.
    """
    if len(stream.last) < tarfile.BLOCKSIZE:
        raise EOFError("it is cut short: the mark of its end is missing")
    rest = stream.last
    while rest:
        if rest.strip(b"\0"):
            raise tarfile.ReadError("a header is damaged, or something follows the end")
        rest = file.read(_CHUNK)
        out.bound(file.tell())
