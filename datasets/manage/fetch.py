"""Fetching a dataset: download, unpack beside, move into place. What is there is never touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dassl.utils import DataError, UserError
from dassl.utils.download import DownloadError, check_file, download, download_gdrive, extract
from dassl.utils.files import git_blob_id, listed
from dassl.utils.locks import file_lock
from dassl.utils.logger import get_logger
from dassl.utils.remote_zip import download_member
from datasets.manage.catalog import Entry, Remote, Source
from datasets.manage.sources import file_there, folder_of, plain_name

logger = get_logger(__name__)

UNPACKING = ".unpacking-"  # temporary folders; those of a killed run are removed by the next


@dataclass(frozen=True)
class Options:
    """How to fetch.

    Attributes:
        unchecked: take files whose checksum is not the known one.
        keep_archives: do not delete what was unpacked.
    """

    unchecked: bool = False
    keep_archives: bool = False


def fetch(entry: Entry, source: Source, root: Path, options: Options) -> list[str]:
    """Fetches what a dataset lacks from one of its sources, and says what it does.

    Returns:
        What went wrong, a sentence each; the rest is in place.

    Raises:
        DownloadError: the folder cannot be written, or is too small.
    """
    folder = folder_of(entry, root)
    logger.info(f"{entry.name}: {source.name} source, to {folder}")
    for file in source.files:
        _report(file, folder)
    problems = _fetch_lacking(entry, source, folder, options) if _lacking(source, folder) else []
    for file in source.files:
        _say_whether_official(file, folder)
    return problems


def _fetch_lacking(entry: Entry, source: Source, folder: Path, options: Options) -> list[str]:
    try:
        waiting = f"  waiting for another process that downloads into {folder}"
        with file_lock(folder / ".download.lock", waiting):
            _remove_leftovers(folder)
            # Asked again: another process may have fetched them while this one waited.
            problems = _fetch_files(_lacking(source, folder), folder, options)
            if not problems:
                for file in (file for other in entry.sources for file in other.files):
                    (folder / f"{file.name}.part").unlink(missing_ok=True)  # from another source
            return problems
    except UserError:
        raise
    except (OSError, NotImplementedError) as error:  # the latter: a folder without locks
        reason = getattr(error, "strerror", None) or error
        raise DownloadError(
            f"{folder} cannot be written ({reason}); choose another --root"
        ) from None


def ways(entry: Entry, root: Path, tried: list[Source]) -> list[str]:
    """Returns what to try when the sources in `tried` failed, a line each."""
    folder = folder_of(entry, root)
    command = entry.command("download", root)
    names = [source.name for source in tried]
    lines = [
        f"{command} --source {other.name}" + (f"   (gone: {other.gone})" if other.gone else "")
        for other in entry.sources
        if other.name not in names
    ]
    for source in tried:
        files = listed([plain_name(file) for file in source.files], at_most=4)
        lines.append(f"fetch by hand into {folder}: {files}; then: {command}")
    lines.append(f"{command} --mirror FOLDER_OR_ADDRESS   (that has these files)")
    lines += [f"by hand from {place}" for place in (entry.page, *entry.elsewhere)]
    return lines


# --- one file -------------------------------------------------------------------------------------


def _is_there(file: Remote, folder: Path) -> bool:
    return all((folder / result).exists() for result in file.results)


def _lacking(source: Source, folder: Path) -> list[Remote]:
    return [file for file in source.files if not _is_there(file, folder)]


def _report(file: Remote, folder: Path) -> None:
    there = [result for result in file.results if (folder / result).exists()]
    lacking = [result for result in file.results if result not in there]
    if there:
        rest = f"; {listed(lacking)} is to be fetched" if lacking else ""
        logger.info(f"  kept as it is: {listed(there)}{rest}")


def _say_whether_official(file: Remote, folder: Path) -> None:
    path = folder / file.name
    if file.git_blob is None or not path.is_file():
        return
    if (found := git_blob_id(path)) == file.git_blob:
        logger.info(f"  {file.name} is the official one (git blob {found})")
    else:
        logger.warning(
            f"  note: {file.name} is not the official one: its git blob id is {found}, not "
            f"{file.git_blob}"
        )


def _fetch_files(files: list[Remote], folder: Path, options: Options) -> list[str]:
    _require_room(files, folder)
    problems: list[str] = []
    for file in files:
        if _is_there(file, folder):  # it came with the file before
            continue
        try:
            _fetch_file(file, folder, options)
        except UserError as error:
            problems += str(error).splitlines()
    return problems


def _require_room(files: list[Remote], folder: Path) -> None:
    """Raises DownloadError where the archives and what they hold would not fit."""
    needed = 0
    for file in files:
        archive = 0 if file_there(file, folder) else file.size or 0
        needed += archive + (file.size or 0 if file.places else 0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder} has {free / 1e9:.1f} GB free; archives and images together need about "
            f"{needed / 1e9:.1f} GB. Make room or choose another --root."
        )


def _fetch_file(file: Remote, folder: Path, options: Options) -> None:
    checks = {} if options.unchecked else file.checks
    by_hand = file_there(file, folder)
    if by_hand:
        _require_right(by_hand, checks, "Delete it to fetch it anew")
        logger.info(f"  {by_hand.name} is there already")
    there = by_hand or _obtain(file, folder / file.name, checks)
    if file.places:
        _unpack(file, there, folder)
        if there == folder / file.name and not by_hand and not options.keep_archives:
            there.unlink()


def _obtain(file: Remote, target: Path, checks: dict[str, Any]) -> Path:
    """Returns where a file is, which is fetched from the first of its addresses that works.

    An archive in a folder of one's own is unpacked from there; all else comes to `target`.
    """
    if not (file.sha256 or file.md5 or file.git_blob):
        logger.warning(
            f"  note: no checksum of {file.name} is known; `verify` checks what comes out of it"
        )
    errors = []
    for url in file.urls:
        size = f" ({file.size / 1e6:,.1f} MB)" if file.size else ""
        logger.info(f"  fetching {url}{size}")
        try:
            if file.places and url.startswith("file:") and (local := _local(url)).is_file():
                _require_right(local, checks, "Put the right one there")
                return local
            return _way(url)(url, target, **checks)
        except DownloadError as error:
            errors.append(str(error))
    raise DownloadError("\n".join(errors))


def _way(url: str) -> Any:
    """Returns the function that fetches from such an address."""
    if url.startswith("gdrive:"):
        return download_gdrive
    return download_member if urlsplit(url).fragment else download


def _local(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path))


def _require_right(path: Path, checks: dict[str, Any], remedy: str) -> None:
    if problem := check_file(path, **checks):
        raise DownloadError(
            f"{path} is there, but {problem}. {remedy}, or take it as it is with --unchecked."
        )


def _unpack(file: Remote, archive: Path, folder: Path) -> None:
    """Unpacks beside and renames: a reader sees a folder complete or not at all."""
    logger.info(f"  unpacking {archive.name}")
    unpacked = Path(tempfile.mkdtemp(prefix=UNPACKING, dir=folder))
    try:
        extract(archive, unpacked)
        if file.inner:
            inner = _require(unpacked / file.inner, unpacked, archive)
            unpacked_inner = unpacked / f"{UNPACKING}inner"
            extract(inner, unpacked_inner)
            start = unpacked_inner
        else:
            start = unpacked
        for path, place in file.places:
            if path == "**":
                path = f"{_folder_with(file.wanted, start, archive)}/*"
            _move(start, path, folder, place, archive)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _folder_with(wanted: tuple[str, ...], start: Path, archive: Path) -> str:
    """Returns the folder in an archive, three deep at most, that holds what is wanted."""
    level = [start]
    for _ in range(4):
        for folder in level:
            if set(wanted) <= {child.name for child in folder.iterdir()}:
                return folder.relative_to(start).as_posix()
        inside = (child for folder in level for child in sorted(folder.iterdir()))
        level = [child for child in inside if child.is_dir() and child.name != "__MACOSX"]
        level = level[:1000]  # class folders: it is not among them
    found = sorted(entry.name for entry in start.iterdir())
    raise DataError(
        f"{archive} should hold a folder with {listed(wanted)}, but holds {listed(found)}. Unpack "
        f"it by hand, or use another source."
    )


def _move(start: Path, path: str, folder: Path, place: str, archive: Path) -> None:
    if path.endswith("*"):
        inside = _require(start / path.rstrip("*/"), start, archive)
        moves = [(child, folder / place / child.name) for child in sorted(inside.iterdir())]
    else:
        moves = [(_require(start / path, start, archive), folder / place)]
    for source, target in moves:
        if target.exists():
            logger.info(f"  kept as it is: {target}")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)


def _require(path: Path, start: Path, archive: Path) -> Path:
    if not path.exists():
        found = sorted(entry.name for entry in start.iterdir())
        raise DataError(
            f"{archive} should hold {path.relative_to(start)}, but holds {listed(found)}. Unpack "
            f"it by hand into {archive.parent}, or use another source."
        )
    return path


# --- the folder -----------------------------------------------------------------------------------


def _remove_leftovers(folder: Path) -> None:
    for left in folder.glob(f"{UNPACKING}*"):
        shutil.rmtree(left, ignore_errors=True)
