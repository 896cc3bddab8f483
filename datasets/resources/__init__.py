"""What ships with the project: splits, class names, digests of samples, the catalog of datasets."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

SPLITS = _HERE / "splits"  # official split files, gzipped
CLASSNAMES = _HERE / "classnames.json"  # dataset → names in label order
IMAGENET_CLASSNAMES = _HERE / "imagenet_classnames.txt"  # wnid and name, in label order
PUBLISHED = _HERE / "digests.json"  # SHA-256 of the few-shot samples behind the papers' numbers
CATALOG = _HERE / "catalog.json"  # sizes, terms and sources of every dataset
