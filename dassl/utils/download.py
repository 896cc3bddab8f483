"""Fetching files: progress, retries, resumption, size and checksum; see archives.py to unpack."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import ssl
import time
import urllib.error
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dassl.utils.archives import extract
from dassl.utils.bars import bar, shows_bars
from dassl.utils.files import PathLike, git_blob_id
from dassl.utils.logger import get_logger
from dassl.utils.web import DownloadError, open_url, refusal_advice

logger = get_logger(__name__)

__all__ = ["DownloadError", "check_file", "download", "download_gdrive", "extract", "sha256_of"]

ATTEMPTS = 5  # connections in a row that may fail without a byte
MAX_ATTEMPTS = 500  # connections in all: a server could break off after every byte
PAUSE = 1.0  # seconds before the second attempt; doubles each time
MAX_WAIT = 60.0  # seconds, where a server asks for a pause
_CHUNK = 1 << 20  # bytes
_HEAD = 512  # bytes, in which a web page shows itself
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP: the same request may work later
_EXPIRED = (403, 410)  # HTTP: of a link that the address led to, and that is valid for minutes
# Failures to connect at all: not tried again, unless the download was under way before.
_HOPELESS = (
    socket.gaierror,
    ConnectionRefusedError,
    ssl.SSLCertVerificationError,
    FileNotFoundError,  # file://
)


class _BrokenOffError(Exception):
    """The connection failed in a way that may pass, after `wait` seconds if the server says so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str,
    fpath: PathLike,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    git_blob: str | None = None,
) -> Path:
    """Fetches `url` to `fpath`, continuing an interrupted download where it stopped.

    The file appears under its name only when it is complete and right; until then it is
    `<fpath>.part`. A file that is there already is kept if it is right. Connections that fail are
    tried again, with growing pauses, as long as bytes come; each time the address itself is asked,
    so that links that it leads to may expire meanwhile. `web.open_url` says where a token goes.

    Args:
        url: http(s) or file address.
        fpath: where the file goes; parent folders are created.
        sha256, md5: expected checksums in hexadecimal; None: not checked.
        size: expected size in bytes; None: whatever the server says.
        git_blob: expected id of the content as a blob of git.

    Raises:
        DownloadError: the address cannot be reached, the size is another, or the checksum still
            differs after a fresh try.
    """

    def fetch(part: Path) -> None:
        _fetch_with_retries(url, part, size)

    checks = {"sha256": sha256, "md5": md5, "size": size, "git_blob": git_blob}
    return fetch_checked(url, fpath, fetch, partial(check_file, **checks))


def download_gdrive(
    url: str,
    fpath: PathLike,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    git_blob: str | None = None,
) -> Path:
    """Fetches a file from Google Drive with gdown; otherwise like `download`.

    Args:
        url: address of the file, in any of Google Drive's forms, or its id alone.
    """

    def fetch(part: Path) -> None:
        import gdown  # only needed for this

        try:
            quiet = not shows_bars()
            came = gdown.download(id=gdrive_id(url), output=str(part), resume=True, quiet=quiet)
        except Exception as error:  # gdown lets errors of several libraries through
            came, reason = None, f": {error}".rstrip()
        else:
            reason = ""
        if came is None:
            raise DownloadError(
                f"{url} cannot be fetched{reason}. Google Drive turns programs away when a file "
                f"is asked for often: try again in a day, or open "
                f"https://drive.google.com/file/d/{gdrive_id(url)}/view in a browser and put the "
                f"file at {fpath}."
            )
        with part.open("rb") as file:
            head = file.read(_HEAD)
        try:
            _require_no_web_page(url, head)
        except DownloadError:
            part.unlink()
            raise

    checks = {"sha256": sha256, "md5": md5, "size": size, "git_blob": git_blob}
    return fetch_checked(url, fpath, fetch, partial(check_file, **checks))


def gdrive_id(url: str) -> str:
    """Returns the id in an address such as https://drive.google.com/file/d/<id>/view."""
    found = re.search(r"(?:/d/|[?&]id=|^gdrive:|^)([\w-]{20,})", url)
    if found is None:
        raise DownloadError(f"{url} is no address of a file on Google Drive: it holds no file id")
    return found[1]


def check_file(
    fpath: PathLike,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    git_blob: str | None = None,
) -> str:
    """Returns what is wrong with a file ("its MD5 is ..., not ..."), or ""."""
    if not Path(fpath).is_file():
        return "it is no file"
    there = Path(fpath).stat().st_size
    if size is not None and there != size:
        return f"it has {there:,} bytes, not {size:,}"
    for kind, expected in (("sha256", sha256), ("md5", md5)):
        if expected and (found := _hash_of(fpath, kind)) != expected.lower():
            return f"its {kind.upper()} is {found}, not {expected}"
    if git_blob and (found := git_blob_id(fpath)) != git_blob:
        return f"its git blob id is {found}, not {git_blob}"
    return ""


def sha256_of(fpath: PathLike) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    return _hash_of(fpath, "sha256")


def _hash_of(fpath: PathLike, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with Path(fpath).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch_checked(
    url: str, fpath: PathLike, fetch: Callable[[Path], None], check: Callable[[Path], str]
) -> Path:
    """Calls `fetch(part)` unless the file is there, checks the part, and gives it its name."""
    target = Path(fpath)
    if target.is_file() and not check(target):
        return target
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):  # a continued file may be spoilt: one retry from the first byte
        continued = part.exists() and part.stat().st_size > 0
        fetch(part)
        problem = check(part)
        if not problem:
            os.replace(part, target)
            return target
        part.unlink()
        if not continued:
            break
    raise DownloadError(
        f"{url} was fetched, but {problem}. The file may have changed or the connection altered "
        f"it; fetch it in another way and put it at {target}."
    )


def _fetch_with_retries(url: str, part: Path, size: int | None) -> None:
    failures = 0
    for attempt in range(MAX_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            return _fetch(url, part, size)
        except _BrokenOffError as error:
            came = part.exists() and part.stat().st_size > before
            failures = 1 if came else failures + 1
            if failures >= ATTEMPTS or attempt + 1 == MAX_ATTEMPTS:
                raise DownloadError(
                    f"{url} cannot be fetched: {error}. What came so far is kept in {part}; run "
                    "the same command again to continue."
                ) from None
            logger.debug(f"  {error}: trying again")
            time.sleep(max(PAUSE * 2 ** (failures - 1), error.wait))


def _fetch(url: str, part: Path, size: int | None) -> None:
    """Appends to `part` what is missing; raises _BrokenOffError if it is worth another attempt."""
    done = part.stat().st_size if part.exists() else 0
    try:
        with open_url(url, {"Range": f"bytes={done}-"} if done else None) as source:
            _receive(url, source, part, done, size)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:
            return _judge_complete(error, part, done, size)
        raise _refused(url, error) from None
    except ValueError as error:
        raise DownloadError(f"{url} is no address: {error}") from None
    except DownloadError:
        raise
    except http.client.HTTPException as error:
        raise _BrokenOffError(f"the server's answer breaks off ({error!r})") from None
    except urllib.error.URLError as error:
        if not done and isinstance(error.reason, _HOPELESS):
            raise DownloadError(f"{url} cannot be fetched: {error.reason}") from None
        raise _BrokenOffError(str(error.reason)) from None
    except (ConnectionError, TimeoutError) as error:
        raise _BrokenOffError(str(error) or repr(error)) from None
    except OSError as error:  # of our own disk
        raise DownloadError(
            f"{url} cannot be saved to {part}: {error}. Make room or choose another folder, then "
            "run the same command again to continue."
        ) from None


def _refused(url: str, error: urllib.error.HTTPError) -> Exception:
    """Returns what to raise for an answer that is an error: may it pass, and what would help?"""
    if error.code in _PASSING:
        seconds = re.fullmatch(r"\d{1,6}", error.headers.get("Retry-After", ""))
        return _BrokenOffError(str(error), min(float(seconds[0]), MAX_WAIT) if seconds else 0.0)
    if error.code in _EXPIRED and error.url != url:
        return _BrokenOffError(f"{error}, for a link that it led to and that may have expired")
    advice = refusal_advice(url) if error.code in (401, 403) else ""
    return DownloadError(f"{url} cannot be fetched: {error}{advice}")


def _receive(
    url: str, source: http.client.HTTPResponse, part: Path, done: int, size: int | None
) -> None:
    # 206: the server sends the rest only. Another status: it starts anew, and so do we.
    resumed = source.status == 206 and _starts_at(source) == done
    start = done if resumed else 0
    length = re.fullmatch(r"\d{1,18}", source.headers.get("Content-Length", ""))
    total = int(length[0]) + start if length else None
    if size is not None and total is not None and total != size:
        raise DownloadError(
            f"{url} offers a file of {total:,} bytes; {size:,} were expected. The file has changed "
            "or the address leads elsewhere."
        )
    chunk = source.read(_HEAD)
    if not resumed:  # a page of errors must not take the place of what came so far
        _require_no_web_page(url, chunk)
    with (
        part.open("ab" if resumed else "wb") as file,
        bar(part.name.removesuffix(".part"), total=total, unit="B", initial=start) as shown,
    ):
        while chunk:
            file.write(chunk)
            shown.update(len(chunk))
            if size is not None and file.tell() > size:
                raise DownloadError(
                    f"{url} sends more than the {size:,} bytes that were expected. The file has "
                    "changed or the address leads elsewhere."
                )
            chunk = source.read1(_CHUNK)
    if total is not None and (came := part.stat().st_size) < total:
        raise _BrokenOffError(f"the connection broke off after {came:,} of {total:,} bytes")


def _starts_at(source: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d{1,18})-", source.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _judge_complete(error: urllib.error.HTTPError, part: Path, done: int, size: int | None) -> None:
    """416, nothing is left to send: the part is complete, or longer than the file and spoilt."""
    found = re.fullmatch(r"bytes \*/(\d{1,18})", error.headers.get("Content-Range", ""))
    total = int(found[1]) if found else size
    if total is not None and done != total:
        part.unlink()
        raise _BrokenOffError(f"{done:,} bytes were kept of a file of {total:,}; starting anew")


def _require_no_web_page(url: str, head: bytes) -> None:
    """Raises DownloadError for a login, quota or error page that came instead of the file."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")) and not url.endswith((".html", ".htm")):
        raise DownloadError(
            f"{url} sent a web page instead of the file: it may need a login, its quota may be "
            "used up, or the file has moved. Open the address in a browser to see."
        )
