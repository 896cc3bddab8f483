"""Pictures to classify: found in folders, read ahead, prepared as the run prepared its own.

Shapes: B images, H × W pixels.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, image_reader
from dassl.data.transforms import build_transform
from dassl.data.workers import usable_cores
from dassl.utils import ConfigError, DataError, MissingFileError, UserError, read_image
from dassl.utils.files import listed
from datasets.readers.image_checks import ImageChecks, check_image
from datasets.readers.image_tree import EXTENSIONS, SYSTEM_FOLDERS
from datasets.readers.pictures import PictureReader
from features.reading import ByteImages

READERS = 4  # threads at most; Pillow decodes outside of Python's lock

Picture = str | os.PathLike | Image.Image


def find_pictures(source: str) -> list[str]:
    """Returns the paths of images.

    Args:
        source: an image; a folder, of which all images below are taken, by their endings, sorted;
            or "-": paths on standard input, one a line, or with NUL between them.

    Raises:
        MissingFileError: there is no such file or folder.
        DataError: the folder holds no image, or standard input no path.
    """
    if source == "-":
        if paths := _on_standard_input():
            return paths
        raise DataError("standard input names no picture: give a path a line")
    path = Path(source).expanduser()
    if not path.exists():
        raise MissingFileError(f"there is no picture and no folder {path}")
    if not path.is_dir():
        return [str(path)]
    found = [
        os.path.join(place, name)
        for place, folders, names in os.walk(path)
        for name in _kept(names, folders)
    ]
    if not found:
        raise DataError(
            f"the folder {path} holds no picture: none of its files ends in .jpg, .png, …"
        )
    return sorted(found)


def _on_standard_input() -> list[str]:
    """Returns paths as they are, also such as are no UTF-8; `find -print0` puts NUL behind each."""
    raw = getattr(sys.stdin, "buffer", None)
    text = os.fsdecode(raw.read()) if raw else sys.stdin.read()
    if "\0" in text:
        return [path for path in text.split("\0") if path]
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _kept(names: list[str], folders: list[str]) -> list[str]:
    hidden = (*SYSTEM_FOLDERS, ".")
    folders[:] = [name for name in folders if not name.lower().startswith(hidden)]
    return [n for n in names if n.lower().endswith(EXTENSIONS) and not n.startswith(".")]


@dataclass(frozen=True)
class Reader:
    """Reads pictures as they are meant, and those of the run's own dataset as its test read them.

    Attributes:
        as_meant: a path → RGB image.
        dataset: folder of a benchmark, whose public preprocessing knows no orientation, no profile
            and no transparency; None: there is none.
    """

    as_meant: Callable[[str], Image.Image]
    dataset: Path | None = None

    @classmethod
    def of(cls, cfg: CfgNode) -> Reader:
        """Returns the reader of a run."""
        if own := image_reader(cfg):
            return cls(own)
        name, root = cfg.DATASET.NAME, cfg.DATASET.ROOT
        known = DATASET_REGISTRY.get(name) if name in DATASET_REGISTRY else None
        below = getattr(known, "dataset_dir", "")
        folder = Path(root).expanduser().resolve() / below if root and below else None
        return cls(PictureReader(), folder)

    def __call__(self, path: str) -> Image.Image:
        return read_image(path) if self._is_of_dataset(path) else self.as_meant(path)

    def show(self, image: Image.Image) -> Image.Image:
        """Returns an image that Pillow opened in RGB; nobody knows that it is of the dataset."""
        show = getattr(self.as_meant, "show", None)
        return show(image) if show else image.convert("RGB")

    def check(self, path: str) -> None:
        """Raises UserError if a picture cannot be read, as its first and last bytes tell."""
        plain = self._is_of_dataset(path)
        check = check_image if plain else getattr(self.as_meant, "check", check_image)
        check(path)

    def _is_of_dataset(self, path: str) -> bool:
        return self.dataset is not None and Path(path).resolve().is_relative_to(self.dataset)


class PictureBatches:
    """Reads pictures while others are encoded.

    Args:
        cfg: of the run: INPUT says how images are prepared, DATASET how they are read.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.transform = build_transform(cfg, is_train=False)
        if self.transform is None:
            raise ConfigError(
                "the run had INPUT.NO_TRANSFORM True, so its pictures are no tensors: nothing can "
                "be predicted"
            )
        self.read = Reader.of(cfg)
        self.bytes = ByteImages(self)

    def require(self, paths: Sequence[str]) -> None:
        """Raises DataError with the pictures that cannot be read; others are not decoded."""
        checks = ImageChecks(self.read.check, what="looking at pictures")
        if problems := [problem for problem in checks.problems(paths) if problem]:
            several = f"{len(problems):,} pictures: {listed(problems)}"
            raise DataError(problems[0] if len(problems) == 1 else several)

    def __call__(
        self, pictures: Sequence[Picture], size: int, broken: dict[int, str] | None = None
    ) -> Iterator[Tensor]:
        """Yields (B, 3, H, W) bytes, for `floats`, of `size` pictures each, in order.

        Args:
            pictures: paths or PIL images.
            size: B, at most.
            broken: takes places and reasons of those that cannot be read, which are left out;
                None: the first is an error.
        """
        prepare = self.bytes.dataset.transform
        with ThreadPoolExecutor(min(READERS, usable_cores())) as readers:
            waiting: deque[tuple[int, Future]] = deque()
            left = enumerate(pictures)
            while True:
                while len(waiting) < 2 * size and (item := next(left, None)) is not None:
                    waiting.append((item[0], readers.submit(self._prepared, item[1], prepare)))
                if not waiting:
                    return
                try:
                    first = self._first(waiting, size, broken)
                except BaseException:
                    readers.shutdown(wait=False, cancel_futures=True)
                    raise
                if first:
                    yield torch.stack(first)

    @staticmethod
    def _first(
        waiting: deque[tuple[int, Future]], size: int, broken: dict[int, str] | None
    ) -> list[Tensor]:
        """Takes `size` pictures, and returns those that could be read."""
        found = []
        for _ in range(min(size, len(waiting))):
            place, picture = waiting.popleft()
            try:
                found.append(picture.result())
            except UserError as error:
                if broken is None:
                    raise
                broken[place] = str(error)
        return found

    def floats(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) as yielded → as the run's transform gives them, on the same device."""
        return self.bytes.floats(images)

    def _prepared(self, picture: Picture, prepare: Callable[[Image.Image], Tensor]) -> Tensor:
        if not isinstance(picture, Image.Image):
            return prepare(self.read(os.fspath(picture)))
        try:
            return prepare(self.read.show(picture))
        except ValueError as error:
            raise DataError(f"the picture {picture!r} cannot be read: {error}") from None
