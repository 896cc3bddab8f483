"""Images as people keep them, class by class: in folders, or listed in a CSV file."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from dassl.utils import DataError, MissingFileError
from dassl.utils.files import listed

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")  # any case
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
UNSPLIT = "all"  # the part of images that nobody assigned to train, val or test
NOT_A_CLASS = "split_fewshot"  # few-shot samples are kept there

Row = tuple[str, str]  # path of an image, its class as the folder or the file has it


def find_file(name: str, root: Path) -> Path | None:
    """Returns where the file is: as given, or below `root`; None if there is none."""
    given = Path(name).expanduser()
    return next((p.absolute() for p in (given, root / given) if p.is_file()), None)


# --- folders --------------------------------------------------------------------------------------


def read_folders(root: Path) -> dict[str, list[Row]]:
    """Lists the images of each part; {UNSPLIT: ...} if there are no train and test folders."""
    folders = _subfolders(root)
    parts: dict[str, Path] = {}
    for folder in folders:
        # A class may be called "train": its folder holds images, not class folders.
        if folder.name.lower() in PARTS and _subfolders(folder) and not _has_images(folder):
            parts.setdefault(PARTS[folder.name.lower()], folder)
    if not parts:
        return {UNSPLIT: _class_rows(root, folders)}
    for needed in ("train", "test"):
        if needed not in parts:
            raise DataError(
                f"{root} holds {listed([p.name for p in parts.values()])} but no {needed} folder; "
                f"add {needed}/<class>/, or put all class folders directly into {root} to have "
                "them split"
            )
    return {part: _class_rows(folder, _subfolders(folder)) for part, folder in parts.items()}


def _class_rows(parent: Path, folders: list[Path]) -> list[Row]:
    if not folders:
        raise DataError(
            f"{parent} has no class folders; expected <class>/*.jpg in it, or train/<class>/*.jpg "
            "and test/<class>/*.jpg. For other layouts list the images in a CSV (DATASET.CSV)."
        )
    rows: list[Row] = []
    for folder in folders:
        paths = list_images(folder)
        if not paths:
            raise DataError(
                f"class folder {folder} holds no images ({', '.join(EXTENSIONS)}); add some or "
                "remove the folder"
            )
        rows += [(path, folder.name) for path in paths]
    return rows


def list_images(folder: Path) -> list[str]:
    """Returns the images below a folder, at any depth, sorted; hidden ones are passed over."""
    found = []
    for place, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(place, name) for name in files if _is_image(name)]
    return [str(path) for path in sorted(found)]


def _subfolders(folder: Path) -> list[Path]:
    inside = (p for p in folder.iterdir() if not p.name.startswith(".") and p.name != NOT_A_CLASS)
    return sorted(path for path in inside if path.is_dir())


def _has_images(folder: Path) -> bool:
    return any(_is_image(path.name) and path.is_file() for path in folder.iterdir())


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


# --- CSV ------------------------------------------------------------------------------------------


def read_csv(file: Path, root: Path) -> dict[str, list[Row]]:
    """Lists the images of each part that the file names; paths in it start from `root`."""
    parts: dict[str, list[Row]] = {}
    missing: list[str] = []
    seen: set[str] = set()
    twice: list[str] = []
    for line, row in _csv_lines(file):
        if not row["path"] or not row["label"]:
            raise DataError(f"{file}, line {line}: path or label is empty; fill it in or remove it")
        path = _locate(root, row["path"])
        if path is None:
            missing.append(row["path"])
            continue
        if path in seen:
            twice.append(row["path"])
        seen.add(path)
        parts.setdefault(_part(file, line, row), []).append((path, row["label"]))
    if missing:
        raise MissingFileError(
            f"{len(missing):,} of the {len(missing) + len(seen):,} images that {file} names are "
            f"missing below {root}: {listed(missing)}. Paths start from --root (DATASET.ROOT)."
        )
    if twice:
        raise DataError(
            f"{file} names images more than once ({len(twice):,}): {listed(twice)}. Keep one line "
            "an image, in one part: a test on training images says nothing."
        )
    absent = [part for part in ("train", "test") if part not in parts]
    if parts and UNSPLIT not in parts and absent:
        raise DataError(
            f"{file} assigns no image to {absent[0]}; its column split must name train and test "
            "(and val, if you like), or be left out to have the images split"
        )
    return parts


def _csv_lines(file: Path) -> Iterable[tuple[int, dict[str, str]]]:
    """Yields the line number and the columns of each row, stripped."""
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets put a mark at the start
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error}); save it as CSV in UTF-8") from None
    header = text.partition("\n")[0]
    delimiter = ";" if ";" in header and "," not in header else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    if "path" not in columns or "label" not in columns:
        raise DataError(
            f"{file} has the columns {', '.join(columns) or '(none)'}; expected a first line "
            "path,label or path,label,split"
        )
    reader.fieldnames = columns
    for row in reader:
        wanted = {c: (row.get(c) or "").strip() for c in ("path", "label", "split") if c in columns}
        yield reader.line_num, wanted


def _part(file: Path, line: int, row: dict[str, str]) -> str:
    if "split" not in row:
        return UNSPLIT
    part = PARTS.get(row["split"].lower())
    if part is None:
        raise DataError(
            f"{file}, line {line}: split is {row['split']!r}; expected one of {', '.join(PARTS)}"
        )
    return part


def _locate(root: Path, name: str) -> str | None:
    """Returns the full path; takes backslashes for slashes, and accents in either stored form."""
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        for form in (spelling, *(unicodedata.normalize(f, spelling) for f in ("NFC", "NFD"))):
            path = os.path.abspath(root / Path(form).expanduser())
            if os.path.isfile(path):
                return path
    return None
