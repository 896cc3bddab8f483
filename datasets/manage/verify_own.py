"""Whether images of one's own can be trained on: layout, names, every image, copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
from dassl.config import get_cfg_default
from dassl.utils import DataError, MissingFileError
from datasets.folder import Folder
from datasets.manage.verify import Absent, Fault, Finding, parts_of, require_decoding
from datasets.readers.copies import across_parts, describe_copies


def verify_own_steps(root: Path, settings: Sequence[str] = ()) -> Iterator[Finding]:
    """Checks a folder of class folders, or a CSV file, and reads all of its images.

    Args:
        root: DATASET.ROOT of the dataset `Folder`.
        settings: KEY VALUE pairs, such as DATASET.CSV birds.csv.

    Yields:
        What was checked and found right.

    Raises:
        UserError: the first thing that is wrong.
    """
    if not root.is_dir():
        raise Absent(f"there is no folder {root}; --root names the one with your images")
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    cfg.DATASET.NAME, cfg.DATASET.ROOT = "Folder", str(root)
    cfg.merge_from_list(list(settings))
    try:
        dataset = Folder(cfg)
    except (DataError, MissingFileError) as error:
        raise Fault(str(error)) from None
    parts = parts_of(dataset)
    sizes = ", ".join(f"{len(items):,} {part}" for part, items in parts.items())
    yield "split", f"{sizes}; SHA-256 {dataset.split_digest[:16]}"
    names = dataset.classnames
    yield "classes", f"{dataset.num_classes}, from {names[0]} to {names[-1]}"
    paths = list(dict.fromkeys(item.impath for items in parts.values() for item in items))
    require_decoding(paths, dataset.reader, "Fetch it anew, or take it out.")
    yield "images", f"all {len(paths):,} decoded"
    if copies := across_parts(parts):
        raise Fault(f"{describe_copies(copies, at_most=10)}. Keep one of each.")
    yield "copies", "no image is in two parts, or under two labels"
