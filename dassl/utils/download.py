"""Fetching files: progress, resumption, checksum; and unpacking archives that we did not make."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from dassl.utils.errors import DataError, UserError
from dassl.utils.files import PathLike

_CHUNK = 1 << 20  # bytes


class DownloadError(UserError, OSError):
    """A file could not be fetched, or what came is not what was expected."""


def download(url: str, fpath: PathLike, sha256: str | None = None) -> Path:
    """Fetches `url` to `fpath`, continuing an interrupted download where it stopped.

    The file appears under its name only when it is complete and its checksum is right; until then
    it is `<fpath>.part`. A file that is there already is kept if the checksum fits.

    Args:
        url: http(s) or file address.
        fpath: where the file goes; parent folders are created.
        sha256: expected SHA-256 in hexadecimal; None: not checked.

    Raises:
        DownloadError: the address cannot be reached, or the checksum differs after a fresh try.
    """
    target = Path(fpath)
    if target.is_file() and (sha256 is None or sha256_of(target) == sha256):
        return target
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):  # a continued file may be spoilt: one retry from the first byte
        continued = part.exists() and part.stat().st_size > 0
        _fetch(url, part)
        if sha256 is None or sha256_of(part) == sha256:
            os.replace(part, target)
            return target
        part.unlink()
        if not continued:
            break
    raise DownloadError(
        f"{url} was fetched, but its SHA-256 is not {sha256}. The file may have changed or the "
        f"connection altered it; fetch it in another way and put it at {target}."
    )


def sha256_of(fpath: PathLike) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with Path(fpath).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch(url: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as source:
            resumed = done > 0 and source.status == 206  # 206: the server sends the rest only
            length = source.headers.get("Content-Length")
            total = int(length) + (done if resumed else 0) if length else None
            with (
                part.open("ab" if resumed else "wb") as file,
                tqdm(
                    total=total,
                    initial=done if resumed else 0,
                    unit="B",
                    unit_scale=True,
                    desc=part.name.removesuffix(".part"),
                ) as bar,
            ):
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the file is complete already
            return
        raise DownloadError(f"{url} cannot be fetched: {error}") from None
    except OSError as error:
        raise DownloadError(
            f"{url} cannot be fetched: {error}. What came so far is kept in {part}; run the same "
            "command again to continue."
        ) from None
    if total is not None and part.stat().st_size < total:
        raise DownloadError(f"{url} broke off early; run the same command again to continue.")


def extract(archive: PathLike, folder: PathLike) -> None:
    """Unpacks a zip or tar archive; no member may leave `folder`.

    Raises:
        DataError: the archive is damaged, of an unknown kind, or a member points outside.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for name in file.namelist():
                    if not (folder / name).resolve().is_relative_to(folder.resolve()):
                        raise DataError(f"{archive} is not unpacked: {name} would leave {folder}")
                file.extractall(folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
        else:
            raise DataError(f"{archive} is neither a zip nor a tar archive")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, shutil.Error) as error:
        raise DataError(
            f"{archive} cannot be unpacked: {error}; delete it and fetch it anew"
        ) from None
