"""Unpacking archives that we did not make: no member may leave the folder or fill the disk."""

from __future__ import annotations

import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from dassl.utils.errors import DataError, UserError
from dassl.utils.files import PathLike

MAX_RATIO = 100  # bytes out of a byte in; photographs give about 1, annotations up to 30
FREE_SIZE = 1 << 30  # bytes that any archive may unpack to, whatever the ratio


class UnpackError(UserError, OSError):
    """An archive could not be written out."""


def extract(archive: PathLike, folder: PathLike) -> None:
    """Unpacks a zip or tar archive (plain, gzip, bzip2, xz) into `folder`.

    Nothing is unpacked from an archive whose names leave the folder. Symbolic links are passed
    over, since a later member could be written through them; hard links between members are kept.

    Raises:
        DataError: the archive is damaged, of an unknown kind, unpacks to absurdly many bytes, or
            a member is a device, has an absolute path, or points outside.
        UnpackError: the folder cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        # Tar first: a tar archive that ends in a zip file would pass for a zip archive.
        if tarfile.is_tarfile(archive):
            _extract_tar(archive, folder)
        elif zipfile.is_zipfile(archive):
            _extract_zip(archive, folder)
        else:
            raise DataError(f"{archive} is neither a zip nor a tar archive")
    except UserError:
        raise
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        RuntimeError,  # zipfile: encrypted, or an unknown compression
        shutil.Error,
        UnicodeError,
        ValueError,
    ) as error:
        raise DataError(
            f"{archive} cannot be unpacked: {error}; delete it and fetch it anew"
        ) from None
    except OSError as error:
        if error.errno is None:  # gzip reports damage as an OSError without a number
            raise DataError(
                f"{archive} cannot be unpacked: {error}; delete it and fetch it anew"
            ) from None
        raise UnpackError(f"{archive} cannot be unpacked to {folder}: {error}") from None


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = []
        for member in file.infolist():
            _require_inside(archive, member.filename, folder)
            mode = member.external_attr >> 16  # of the Unix that made it, else 0
            if stat.S_ISLNK(mode):
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{archive} is not unpacked: {member.filename} is no plain file")
            members.append(member)
        _require_sane(archive, sum(member.file_size for member in members))
        for member in _progress(members, archive, len(members)):
            file.extract(member, folder)


def _extract_tar(archive: Path, folder: Path) -> None:
    # A compressed archive shows its members only as it is unpacked: names are judged on the way.
    out = 0
    with tarfile.open(archive) as file:
        for member in _progress(file, archive, None):
            _require_inside(archive, member.name, folder)
            if member.issym():
                target = posixpath.join(posixpath.dirname(member.name), member.linkname)
                _require_inside(archive, target, folder)
                continue
            if member.islnk():
                _require_inside(archive, member.linkname, folder)
            elif not (member.isfile() or member.isdir()):
                raise DataError(f"{archive} is not unpacked: {member.name} is no plain file")
            out += member.size
            _require_sane(archive, out)
            file.extract(member, folder, filter="data")


def _require_inside(archive: Path, name: str, folder: Path) -> None:
    parts = name.replace("\\", "/")
    normal = posixpath.normpath(parts)
    if parts.startswith("/") or normal.split("/")[0] == ".." or (len(name) > 1 and name[1] == ":"):
        raise DataError(f"{archive} is not unpacked: {name} would leave {folder}")


def _require_sane(archive: Path, out: int) -> None:
    limit = max(MAX_RATIO * archive.stat().st_size, FREE_SIZE)
    if out > limit:
        raise DataError(
            f"{archive} is not unpacked: its {archive.stat().st_size:,} bytes would become more "
            f"than {limit:,}. If you trust it, unpack it by hand."
        )


def _progress(members: Iterable, archive: Path, total: int | None) -> Iterator:
    return iter(
        tqdm(members, total=total, desc=f"unpacking {archive.name}", unit=" files", disable=None)
    )
