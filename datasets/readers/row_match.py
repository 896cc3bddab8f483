"""Which official image a row is: by a name that the row has, or by the digest of its bytes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dassl.utils import DataError
from dassl.utils.files import listed
from datasets.readers.image_tree import EXTENSIONS

Names = dict[str, str | None]  # end of an official path → the path; None: it ends several


def match_by_name(
    texts: Mapping[str, Sequence[str | None]], official: Iterable[str]
) -> tuple[str, list[str | None]]:
    """Finds the column that names the official images.

    A value names an image if it is the image's file name or path, or an end of it that no other
    has, with or without ending: `AnnualCrop_1`, `2750/AnnualCrop/AnnualCrop_1.jpg`.

    Args:
        texts: column → value in each row.
        official: paths of the images.

    Returns:
        The column, and the path that each row is; None: none of them.

    Raises:
        DataError: no column names all images, or two rows name one.
    """
    official = list(official)
    ends = _ends(official)
    found = {name: [_named(value, ends) for value in values] for name, values in texts.items()}
    known = {name: len({path for path in paths if path}) for name, paths in found.items()}
    best = max(known, key=lambda name: known[name], default="")
    if not best or known[best] < len(official):
        missing = sorted(set(official) - set(found.get(best, ())))
        said = f"column {best!r} names {known[best]:,}" if best else "there is no column of texts"
        raise DataError(
            f"the rows do not name all of the {len(official):,} official images: {said}; "
            f"{listed(missing)} is in none. With --contents FILE (lines of sha256sum of the "
            "official images), images are matched by their bytes."
        )
    rows: dict[str, int] = {}
    for row, path in enumerate(found[best]):
        if path and rows.setdefault(path, row) != row:
            raise DataError(
                f"rows {rows[path]} and {row} are both called {path}; give the files of one "
                "version of the dataset alone"
            )
    return best, found[best]


def _ends(official: Iterable[str]) -> Names:
    ends: Names = {}
    for path in official:
        parts = _stem(path).split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            ends[end] = None if end in ends else path
    return ends


def _named(value: str | None, ends: Names) -> str | None:
    parts = _stem((value or "").strip().replace("\\", "/")).split("/")
    for start in range(len(parts)):
        if path := ends.get("/".join(parts[start:])):
            return path
    return None


def _stem(path: str) -> str:
    stem, dot, ending = path.rpartition(".")
    return stem if f"{dot}{ending}".lower() in EXTENSIONS else path


def require_same_labels(
    paths: Iterable[str | None], labels: Sequence[int | None], official: Mapping[str, int]
) -> None:
    """Raises DataError where rows that are one class are not one class officially, or vice versa.

    Names alone could be those of another numbering; then classes would be mixed.
    """
    seen: dict[tuple[str, int], tuple[int, str]] = {}
    for path, label in zip(paths, labels):
        if path is None or label is None:
            continue
        for key, other in ((("theirs", label), official[path]), (("ours", official[path]), label)):
            first, example = seen.setdefault(key, (other, path))
            if first != other:
                raise DataError(
                    f"{example} and {path} have one label in the rows or in the official split, "
                    "and two in the other: their names mean other images. Nothing was written."
                )


def read_digests(source: Path, official: Iterable[str]) -> dict[str, list[str]]:
    """Returns SHA-256 → official paths of images with these bytes, of the lines of `sha256sum`.

    Raises:
        DataError: a line is no such line, or an official image is in none.
    """
    official = list(official)
    by_path = {path: path for path in official}
    digests: dict[str, list[str]] = defaultdict(list)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"--contents {source} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if line.strip() and found is None:
            raise DataError(
                f"line {number} of --contents {source} is none of sha256sum: {line[:80]!r}; make "
                "the file in the folder of images: sha256sum */*.jpg > FILE"
            )
        if found and (path := by_path.pop(found[2], None)):
            digests[found[1].lower()].append(path)
    if by_path:
        raise DataError(
            f"--contents {source} lacks {len(by_path):,} of the {len(official):,} official images: "
            f"{listed(sorted(by_path))}; paths start from the folder of images"
        )
    return digests
