"""Images of one's own that a CSV file lists."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dassl.utils import DataError, MissingFileError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from datasets.readers.image_checks import ImageChecks, require_images
from datasets.readers.image_tree import require_text
from datasets.readers.parts import NAMES, UNSPLIT, Parts, file_key, part_of
from datasets.readers.text_files import home_expanded, read_text

logger = get_logger(__name__)

DELIMITERS = ",;\t|"
SEPARATOR_LINE = re.compile(r"\A\s*sep=.[ \t]*(?=[\r\n])", re.IGNORECASE)  # Excel's
COLUMNS = {  # what a column may be called; the first name wins where several are there
    "path": "path file filename file_name filepath file_path fname image image_path image_file"
    " imagepath img img_path",
    "label": "label class category target classname class_name labels",
    "split": "split set subset part partition",
}


def read_csv(file: Path, root: Path, checks: ImageChecks, encoding: str = "") -> Parts:
    """Lists the images of each part that the file names; paths in it start from `root`.

    Raises:
        MissingFileError: images are not there.
        DataError: the file is not what it should be, or its images are not.
    """
    parts: Parts = {}
    missing: list[str] = []
    seen: dict[object, str] = {}
    twice: list[str] = []
    for line, row in _rows(file, read_text(file, encoding)):
        if not row["path"] or not row["label"]:
            raise DataError(f"{file}, line {line}: path or label is empty; fill it in or remove it")
        path = _locate(root, row["path"])
        if path is None:
            missing.append(row["path"])
            continue
        key, shown = file_key(path), f"{row['path']} ({row['label']})"
        if key in seen:
            twice.append(f"{seen[key]} and {shown}")
            continue
        seen[key] = shown
        label = unicodedata.normalize("NFC", row["label"])
        parts.setdefault(_part(file, line, row), []).append((path, label))
    _require_good(file, root, missing, twice, len(seen))
    paths = [path for rows in parts.values() for path, _ in rows]
    require_images(checks, paths, "Fetch it anew, or take the line out.", f"{file}: ")
    absent = [part for part in ("train", "test") if part not in parts]
    if parts and UNSPLIT not in parts and absent:
        raise DataError(
            f"{file} assigns no image to {absent[0]}; its column split must name train and test "
            "(and val, if you like), or be left out to have the images split"
        )
    return parts


def _require_good(
    file: Path, root: Path, missing: list[str], twice: list[str], n_found: int
) -> None:
    if missing:
        raise MissingFileError(
            f"{len(missing):,} of the {len(missing) + n_found:,} images that {file} names are "
            f"missing below {root}: {listed(missing)}. Paths start from --root (DATASET.ROOT)."
        )
    if twice:
        raise DataError(
            f"{file} names images more than once ({len(twice):,}): {listed(twice)}. Keep one line "
            "an image, in one part: a test on training images says nothing."
        )


def _rows(file: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line number and what it says of path, label and split."""
    text = SEPARATOR_LINE.sub("", text)
    delimiter, header = _header(text)
    places = _places(file, header)
    reader = _reader(text, delimiter, strict=True)
    try:
        for number, values in enumerate(_filled(reader)):
            if number == 0:  # the header
                continue
            if any(values[len(header) :]):
                raise DataError(
                    f"{file}, line {reader.line_num} has {len(values)} values, but the first line "
                    f"has {len(header)}; put quotes around a path with {delimiter!r}"
                )
            values += [""] * (len(header) - len(values))
            yield reader.line_num, {role: values[place] for role, place in places.items()}
    except csv.Error as error:
        raise DataError(
            f"{file}, line {reader.line_num} is no CSV ({error}); look for a quote that is not "
            "closed"
        ) from None


def _reader(text: str, delimiter: str, strict: bool = False) -> Any:
    # Without skipinitialspace, quotes after a blank would be letters.
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=delimiter, strict=strict, skipinitialspace=True)


def _filled(reader: Iterable[list[str]]) -> Iterator[list[str]]:
    """Yields the rows, without the lines of nothing but commas that spreadsheets leave."""
    rows = ([value.strip() for value in values] for values in reader)
    return (values for values in rows if any(values))


def _header(text: str) -> tuple[str, list[str]]:
    """Returns the delimiter, and the columns in small letters."""
    found: dict[str, list[str]] = {}
    for delimiter in DELIMITERS:
        try:
            first = next(_filled(_reader(text, delimiter)), [])
        except csv.Error:
            first = []
        found[delimiter] = [name.strip().strip("\ufeff").casefold() for name in first]

    def known(delimiter: str) -> int:
        return sum(_role(name) is not None for name in found[delimiter])

    best = max(DELIMITERS, key=lambda delimiter: (known(delimiter), len(found[delimiter])))
    return best, found[best]


def _role(column: str) -> str | None:
    return next((role for role, names in COLUMNS.items() if column in names.split()), None)


def _places(file: Path, header: list[str]) -> dict[str, int]:
    """Returns where path, label and split stand."""
    places: dict[str, int] = {}
    for role in COLUMNS:
        found = [name for name in header if _role(name) == role]
        if role in found:
            found = [name for name in found if name == role]
        if len(found) > 1:
            raise DataError(
                f"{file} has several columns for the {role}: {', '.join(found)}; call the one that "
                f"counts {role}"
            )
        if found:
            places[role] = header.index(found[0])
    if "path" not in places or "label" not in places:
        raise DataError(
            f"{file} has the columns {', '.join(header) or '(none)'}; expected a first line "
            "path,label or path,label,split"
        )
    others = [name for place, name in enumerate(header) if place not in places.values()]
    unread = [name or "(no name)" for name in others]
    if unread:
        logger.warning(f"Note: columns of {file} that are not read: {listed(unread, at_most=10)}")
    return places


def _part(file: Path, line: int, row: dict[str, str]) -> str:
    if "split" not in row:
        return UNSPLIT
    part = part_of(row["split"])
    if part is None:
        raise DataError(
            f"{file}, line {line}: split is {row['split']!r}; expected one of {', '.join(NAMES)}"
        )
    return part


def _locate(root: Path, name: str) -> str | None:
    """Returns the full path; takes backslashes for slashes, and accents in either stored form."""
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        for form in (spelling, *(unicodedata.normalize(f, spelling) for f in ("NFC", "NFD"))):
            path = os.path.abspath(os.path.join(root, home_expanded(form)))
            if os.path.isfile(path):
                require_text(path)
                return path
    return None
