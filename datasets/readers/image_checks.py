"""Whether files can be read as images: many at once, and none a second time.

A check looks at the header and at the end of a file. Files that were found to be whole are
remembered by their size and times, and looked at again only when one of these changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import IO, Any

import PIL
from PIL import Image

from dassl.utils import DataError, UserError, open_image, read_image, read_json
from dassl.utils.bars import bar
from dassl.utils.files import PathLike
from datasets.readers.derived_files import derived_paths, save_derived

CHUNK, THREADS = 64, 8  # files that a thread looks at in one go
NAME = ".checked_images.json"  # beside the data, or in the user's cache
WORTH_KEEPING = 1000  # files; fewer are looked at faster than remembered
DIGEST = 8  # bytes a file

Check = Callable[[str], Any]  # raises UserError if a file cannot be read as an image
STRIPS = ((273, 279), (324, 325))  # TIFF's tags: where the strips or tiles lie, and their bytes


def check_header(path: str) -> None:
    """Raises UserError unless the header of a file is that of an image."""
    with open_image(path):
        pass


def check_image(path: str) -> None:
    """Raises UserError if `read_image` would; decodes only what does not end as it should."""
    with open_image(path) as image:
        whole = ends_well(path, image)
    if not whole:
        read_image(path)


def ends_well(path: str, image: Image.Image) -> bool:
    """Whether a file has all the bytes that its format says; False, too, if that is not known.

    Args:
        path: of the file.
        image: opened, but not decoded.
    """
    with open(path, "rb") as file:  # noqa: PTH123
        size = os.fstat(file.fileno()).st_size
        if image.format == "TIFF":
            return 0 < _last_byte(image) <= size
        if image.format == "BMP":
            file.seek(2)
            return 0 < int.from_bytes(file.read(4), "little") <= size
        if image.format == "AVIF":
            return _boxes_end(file, size) == size
        file.seek(max(0, size - 4096))
        end = file.read()
    match image.format:
        case "JPEG" | "MPO" | "JPEG2000":
            return b"\xff\xd9" in end
        case "PNG":
            return b"IEND" in end
        case "GIF":
            return end.rstrip(b"\0").endswith(b"\0;")
        case "WEBP":  # opening it needs all of the file
            return True
    return False


def ends_in_zeros(path: str) -> bool:
    """Whether a JPEG file ends in zeros instead of a picture: libjpeg takes them for pixels."""
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        if file.read().strip(b"\0"):
            return False
        file.seek(0)
        return not file.read().rstrip(b"\0").endswith(b"\xff\xd9")


def _boxes_end(file: IO[bytes], size: int) -> int:
    """Returns where the boxes of which an AVIF file consists end; 0 if one does not say."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:], "big") if length == 1 else length
        if length < 8:
            return 0
        place += length
    return place


def _last_byte(image: Image.Image) -> int:
    """Returns where the pixels of a TIFF file end; 0 if it does not say."""
    tags = getattr(image, "tag_v2", {})
    for offsets, counts in STRIPS:
        with contextlib.suppress(KeyError, TypeError, ValueError):  # no such tags, or odd values
            return max(start + length for start, length in zip(tags[offsets], tags[counts]))
    return 0


class ImageChecks:
    """Checks many files; remembers those that can be read.

    Args:
        check: raises UserError for a file that cannot.
        folder: of the dataset, where the memory is kept; None: nothing is remembered.
        identity: what decides on the outcome beside the files, such as a reader's settings.
        what: is done, for the progress bar.
    """

    def __init__(
        self,
        check: Check,
        folder: PathLike | None = None,
        identity: str = "",
        what: str = "looking at images",
    ) -> None:
        self.check = check
        self.folder = folder
        self.what = what
        self._key = hashlib.blake2b(f"{PIL.__version__}\n{identity}".encode(), digest_size=DIGEST)

    def problems(self, paths: Sequence[str]) -> list[str]:
        """Returns why each file cannot be read as an image; "" if it can.

        Chunks, not files, go to the threads: looking at a header takes less time than handing it
        over.
        """
        known = self._remembered()
        new: set[bytes] = set()

        def problems(chunk: Sequence[str]) -> list[str]:
            found = []
            for path in chunk:
                state = self._state(path) if self.folder else b""
                problem = "" if state in known else problem_of(path, self.check)
                if state and not problem and state not in known:
                    new.add(state)
                found.append(problem)
            return found

        chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
        found: list[list[str]] = []
        images = bar(self.what, total=len(paths), unit="images", delay=1)
        with ThreadPoolExecutor(THREADS) as pool, images:
            for some in pool.map(problems, chunks):
                found.append(some)
                images.update(len(some))
        if new and len(known) + len(new) >= WORTH_KEEPING:
            save_derived({"whole": b"".join(known | new).hex()}, self.folder or "", NAME)
        return list(chain.from_iterable(found))

    def _state(self, path: str) -> bytes:
        """Returns a digest that changes whenever the content of a file does; empty: no file."""
        try:
            state = os.stat(path)
        except OSError:
            return b""
        digest = self._key.copy()
        said = f"{path}\0{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"
        digest.update(said.encode(errors="surrogateescape"))
        return digest.digest()

    def _remembered(self) -> set[bytes]:
        for path in derived_paths(self.folder, NAME) if self.folder else ():
            try:
                whole = bytes.fromhex(read_json(path)["whole"])
            except (UserError, OSError, KeyError, TypeError, ValueError):
                continue  # not there or damaged: the files are looked at anew
            return {whole[i : i + DIGEST] for i in range(0, len(whole), DIGEST)}
        return set()


def require_images(
    checks: ImageChecks, paths: Sequence[str], advice: str, source: str = ""
) -> None:
    """Raises DataError with the first file that is no image, how many there are, and advice."""
    if problems := [problem for problem in checks.problems(paths) if problem]:
        raise DataError(f"{source}{first_of(problems)}. {advice}")


def problem_of(path: str, check: Check) -> str:
    """Returns what a check says of a file; "" if it is an image."""
    try:
        check(path)
    except UserError as error:
        return str(error)
    return ""


def first_of(problems: Sequence[str]) -> str:
    """Returns the first problem, and how many more there are, without a period."""
    more = f" ({len(problems) - 1:,} more like it)" if len(problems) > 1 else ""
    return problems[0].rstrip(".") + more
