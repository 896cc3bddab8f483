"""One file out of a zip archive on a server, by ranges: some megabytes instead of the archive."""

from __future__ import annotations

import http.client
import io
import re
import shutil
import urllib.error
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

from dassl.utils.download import check_file, fetch_checked
from dassl.utils.files import PathLike
from dassl.utils.web import DownloadError, open_url, refusal_advice

BLOCK = 1 << 20  # bytes asked for at once, at least
MAX_BYTES = 1 << 28  # asked for in all: the archive's table, and the file
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})$")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


def download_member(address: str, fpath: PathLike, **checks: Any) -> Path:
    """Fetches a file from within a zip archive; otherwise like `download`.

    Args:
        address: <http(s) address of the archive>#<name of the file, in whatever folder>.
        fpath: where it goes.
        checks: of the file, as `check_file` takes them.

    Raises:
        DownloadError: the server has no such archive, or sends no ranges; the archive is damaged,
            or holds no such file, or several.
    """
    url, _, name = address.partition("#")

    def fetch(part: Path) -> None:
        try:
            with (
                zipfile.ZipFile(io.BufferedReader(_Ranges(url), BLOCK)) as archive,
                archive.open(_find(archive, url, name)) as source,
                part.open("wb") as target,
            ):
                shutil.copyfileobj(source, target)
        except urllib.error.HTTPError as error:
            advice = refusal_advice(url) if error.code in (401, 403) else ""
            raise DownloadError(f"{address} cannot be fetched: {error}{advice}") from None
        except DownloadError:
            raise
        except (*_DAMAGE, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise DownloadError(f"{address} cannot be fetched: {reason!s}") from None

    return fetch_checked(address, fpath, fetch, partial(check_file, **checks))


def _find(archive: zipfile.ZipFile, url: str, name: str) -> zipfile.ZipInfo:
    found = [
        member
        for member in archive.infolist()
        if member.filename.split("/")[-1] == name and not member.filename.startswith("__MACOSX/")
    ]
    if len(found) != 1:
        raise DownloadError(f"{url} holds {len(found) or 'no'} files called {name}; one is wanted")
    member = found[0]
    packed = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not packed or member.file_size > MAX_BYTES:
        raise DownloadError(f"{url} holds a {name} of {member.file_size:,} bytes, or oddly packed")
    return member


class _Ranges(io.RawIOBase):
    """A file on a server that can be read from any place."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._place = 0
        self._asked = 0
        self._size = 1 << 62  # until the server says it
        self._ask(0, 1)

    def _ask(self, start: int, count: int) -> bytes:
        self._asked += count
        if self._asked > MAX_BYTES:
            raise DownloadError(f"{self._url} has a table of contents that is larger than any is")
        with open_url(self._url, {"Range": f"bytes={start}-{start + count - 1}"}) as source:
            said = _RANGE.match(source.headers.get("Content-Range", ""))
            if source.status != 206 or said is None or int(said[1]) != start:
                raise DownloadError(f"{self._url} cannot be read in part: no ranges are served")
            self._size = int(said[2])
            return source.read(count)

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._place)
        content = self._ask(self._place, count) if count > 0 else b""
        if len(content) < count:
            raise DownloadError(f"{self._url} breaks off; run the same command again")
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
