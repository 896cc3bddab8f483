"""Pictures to classify: found in folders, read ahead, prepared as the run prepared its own.

Shapes: B images, H × W pixels.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from yacs.config import CfgNode

from dassl.data.datasets import image_reader
from dassl.data.transforms import build_transform
from dassl.data.workers import usable_cores
from dassl.utils import ConfigError, DataError, MissingFileError, read_image
from dassl.utils.files import listed
from datasets.readers.image_checks import check_header, problem_of
from datasets.readers.image_tree import EXTENSIONS, SYSTEM_FOLDERS
from features.reading import ByteImages

READERS = 4  # threads at most; Pillow decodes outside of Python's lock

Picture = str | os.PathLike | Image.Image


def find_pictures(source: str) -> list[str]:
    """Returns the paths of images.

    Args:
        source: an image; a folder, of which all images below are taken, by their endings, sorted;
            or "-": a path a line on standard input.

    Raises:
        MissingFileError: there is no such file or folder.
        DataError: the folder holds no image, or standard input no path.
    """
    if source == "-":
        paths = [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        if not paths:
            raise DataError("standard input names no picture: give a path a line")
        return paths
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


def _kept(names: list[str], folders: list[str]) -> list[str]:
    hidden = (*SYSTEM_FOLDERS, ".")
    folders[:] = [name for name in folders if not name.lower().startswith(hidden)]
    return [n for n in names if n.lower().endswith(EXTENSIONS) and not n.startswith(".")]


def require_pictures(paths: Sequence[str]) -> None:
    """Raises DataError with all files that are no images, as their first bytes tell."""
    problems = [problem for path in paths if (problem := problem_of(path, check_header))]
    if problems:
        raise DataError(
            problems[0] if len(problems) == 1 else f"{len(problems)} pictures: {listed(problems)}"
        )


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
        self.read = image_reader(cfg) or read_image
        self.bytes = ByteImages(self)

    def __call__(self, pictures: Sequence[Picture], size: int) -> Iterator[Tensor]:
        """Yields (B, 3, H, W) bytes, for `floats`, of `size` pictures each, in order."""
        prepare = self.bytes.dataset.transform
        with ThreadPoolExecutor(min(READERS, usable_cores())) as readers:
            waiting: deque[Future] = deque()
            left = iter(pictures)
            while True:
                while len(waiting) < 2 * size and (picture := next(left, None)) is not None:
                    waiting.append(readers.submit(self._prepared, picture, prepare))
                if not waiting:
                    return
                try:
                    first = [waiting.popleft().result() for _ in range(min(size, len(waiting)))]
                except BaseException:
                    readers.shutdown(wait=False, cancel_futures=True)
                    raise
                yield torch.stack(first)

    def floats(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) as yielded → as the run's transform gives them, on the same device."""
        return self.bytes.floats(images)

    def _prepared(self, picture: Picture, prepare: Callable[[Image.Image], Tensor]) -> Tensor:
        if not isinstance(picture, Image.Image):
            return prepare(self.read(os.fspath(picture)))
        show = getattr(self.read, "show", None)  # as the same image in a file is read
        try:
            return prepare(show(picture) if show else picture.convert("RGB"))
        except ValueError as error:
            raise DataError(f"the picture {picture!r} cannot be read: {error}") from None
