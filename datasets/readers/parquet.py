"""Rows of parquet files, as hubs of datasets keep images: bytes, texts beside them, a label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dassl.utils import DataError, MissingFileError
from dassl.utils.errors import ConfigError

ROWS = 64  # whose images are in memory at once
OLDEST = (14, 0, 1)  # before, opening a file could run code in it (CVE-2023-47248)


@dataclass(frozen=True)
class Rows:
    """What the rows of all files say beside their images, in order.

    Attributes:
        texts: column → its value in each row; None: it is empty there.
        labels: of each row; empty: there is no column `label` of whole numbers.
    """

    texts: dict[str, list[str | None]]
    labels: list[int | None]


class ParquetImages:
    """Parquet files with one image a row.

    Args:
        source: a file, or a folder whose files *.parquet are read in the order of their names.

    Raises:
        ConfigError: pyarrow is not installed, or one that is not safe.
        MissingFileError: there is no such file.
        DataError: a file is none, has no images, or has other columns than the first.
    """

    def __init__(self, source: Path) -> None:
        self._arrow = require_pyarrow()
        self.paths = [source] if source.is_file() else sorted(source.rglob("*.parquet"))
        if not self.paths:
            raise MissingFileError(
                f"{source} is no parquet file and no folder with any (*.parquet); give the folder "
                "to which the dataset was downloaded"
            )
        self._image, self._texts, self._label = self._columns()

    def rows(self) -> Rows:
        """Reads all but the images."""
        texts: dict[str, list[str | None]] = {name: [] for name in self._texts}
        labels: list[int | None] = []
        wanted = [*self._texts, *([self._label] if self._label else [])]
        for columns in self._batches(wanted, 4096) if wanted else ():
            labels += columns.pop(self._label, [])
            for name, values in columns.items():
                texts[name] += values
        return Rows(texts, labels)

    def images(self) -> Iterator[bytes]:
        """Yields the file of each row's image, as it is stored."""
        row = 0
        for columns in self._batches([self._image], ROWS):
            for content in columns[self._image]:
                if not content:
                    raise DataError(
                        f"row {row} of {self.paths[0].parent} has no image in it, but at most a "
                        "path to one; take files in which the images are embedded"
                    )
                yield content
                row += 1

    def _columns(self) -> tuple[str, list[str], str]:
        """Returns the columns of images, texts and labels; dots lead into a column's parts."""
        kinds = self._arrow.types
        leaves: dict[str, Any] = {}
        for field in self._read(self.paths[0], lambda file: file.schema_arrow):
            parts = field.type if kinds.is_struct(field.type) else ()
            leaves |= {f"{field.name}.{part.name}": part.type for part in parts}
            leaves[field.name] = field.type
        binary = [n for n, t in leaves.items() if kinds.is_binary(t) or kinds.is_large_binary(t)]
        texts = [n for n, t in leaves.items() if kinds.is_string(t) or kinds.is_large_string(t)]
        label = "label" if "label" in leaves and kinds.is_integer(leaves["label"]) else ""
        if len(binary) != 1:
            raise DataError(
                f"{self.paths[0]} has {len(binary) or 'no'} columns of images; one is wanted, with "
                f"their bytes (its columns: {', '.join(leaves)})"
            )
        return binary[0], texts, label

    def _batches(self, columns: list[str], size: int) -> Iterator[dict[str, list]]:
        for path in self.paths:
            batches = self._read(path, lambda file: file.iter_batches(size, columns=columns))

            def take(batches: Iterator[Any] = batches) -> list[dict[str, list]]:
                return [{n: _values(batch, n) for n in columns} for batch in islice(batches, 1)]

            while taken := self._guarded(path, take):
                yield taken[0]

    def _read(self, path: Path, what: Any) -> Any:
        from pyarrow.parquet import ParquetFile

        return self._guarded(path, lambda: what(ParquetFile(path, page_checksum_verification=True)))

    def _guarded(self, path: Path, call: Any) -> Any:
        try:
            return call()
        except KeyError as error:
            raise DataError(f"{path} has no column {error}, as {self.paths[0]} has") from None
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{path} cannot be read as a parquet file ({str(error).splitlines()[0]}); fetch it "
                "anew"
            ) from None


def _values(batch: Any, name: str) -> list:
    first, _, rest = name.partition(".")
    column = batch.column(first)
    return (column.field(rest) if rest else column).to_pylist()


def require_pyarrow() -> Any:
    """Returns the package; raises ConfigError where it is not installed, or not safe."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        pyarrow = None
    version = re.findall(r"\d+", pyarrow.__version__)[:3] if pyarrow else ()
    if tuple(map(int, version)) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigError(
            f"parquet files need the package pyarrow, {oldest} or newer: "
            f"pip install 'pyarrow>={oldest}'"
        )
    return pyarrow
