"""Decoded images kept in memory, so that a small training set is read from disk only once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from PIL import Image
from torch import multiprocessing

from dassl.utils.images import read_image
from dassl.utils.memory import free_memory

BYTES_PER_PIXEL = 4  # Pillow stores RGB in four bytes
SHARE, MOST = 0.25, 16 * 2**30  # of the free memory; bytes


def cache_bytes(mib: int) -> int:
    """Returns the bound that DATALOADER.CACHE_MB stands for: -1 is a quarter of what is free."""
    return mib * 2**20 if mib >= 0 else min(MOST, int(SHARE * free_memory()))


class ImageCache:
    """Reads images, and keeps those that fit into `max_bytes` as decoded RGB images.

    What comes out is what the reader gives, pixel for pixel, and may be changed by its user:
    the stored image is never handed out itself. What does not fit is read from disk each time.

    Args:
        max_bytes: bound of the pixels kept; 0 keeps nothing.
        reader: path → RGB image; None: `read_image`.
    """

    def __init__(self, max_bytes: int, reader: Callable[[str], Image.Image] | None = None) -> None:
        self.max_bytes = max_bytes
        self.reader = reader
        self.bytes = 0
        self._images: dict[str, Image.Image] = {}

    def __len__(self) -> int:
        return len(self._images)

    def read(self, path: str) -> Image.Image:
        """Returns the image at `path` as RGB, from memory if it is there.

        Raises:
            MissingFileError, DataError: see `read_image`.
        """
        image = self._images.get(path)
        if image is None:
            image = self._decode(path)
            if not self._keep(path, image):
                return image
        return image.copy()  # costs a twentieth of decoding it

    def prepare_workers(self, paths: Iterable[str], n_workers: int) -> None:
        """Gets ready for worker processes; to be called before they start.

        Forked workers share the memory of this process, so everything is decoded here, once, by
        `n_workers` threads. Where processes start afresh (Windows, macOS, Linux from Python 3.14
        on), sharing would mean copying: each worker then keeps what it has read, up to its part
        of the bound.
        """
        if multiprocessing.get_start_method() == "fork":
            self._fill(paths, n_workers)
            self.max_bytes = self.bytes  # a worker could keep more for itself only
        else:
            self.max_bytes //= n_workers

    def _fill(self, paths: Iterable[str], n_threads: int) -> None:
        """Reads images, in the order given, until one does not fit."""
        missing = iter([path for path in dict.fromkeys(paths) if path not in self._images])
        with ThreadPoolExecutor(n_threads) as threads:  # Pillow decodes without Python's lock
            while self.bytes < self.max_bytes and (some := list(islice(missing, 4 * n_threads))):
                images: Iterator[Image.Image] = threads.map(self._decode, some)
                if not all(self._keep(path, image) for path, image in zip(some, images)):
                    return

    def _decode(self, path: str) -> Image.Image:
        return read_image(path) if self.reader is None else self.reader(path)

    def _keep(self, path: str, image: Image.Image) -> bool:
        size = image.width * image.height * BYTES_PER_PIXEL
        if self.bytes + size > self.max_bytes:
            return False
        self._images[path] = image
        self.bytes += size
        return True

    def __getstate__(self) -> dict:
        """Leaves the images behind when a dataset is sent to a worker that does not share them."""
        return {**self.__dict__, "bytes": 0, "_images": {}}
