"""Images of your own: a folder of class folders, or a CSV file; docs/own_data.md says how."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import DataError, MissingFileError, read_json
from dassl.utils.errors import closest
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from datasets.base import BenchmarkDataset
from datasets.readers.own_images import UNSPLIT, Row, find_file, read_csv, read_folders
from datasets.readers.split_files import Split

logger = get_logger(__name__)

P_VAL, P_TEST = 0.2, 0.3  # shares of each class, as in the splits of CoOp's datasets


def extend_cfg(cfg: CfgNode) -> None:
    """Adds the settings of this dataset to a configuration."""
    cfg.DATASET.CSV = ""  # file with the columns path,label[,split]; empty: folders below ROOT
    cfg.DATASET.CLASSNAMES = None  # list in label order, or file; None: as the folders are called
    cfg.DATASET.TEMPLATE = ""  # zero-shot prompt with {} for the name; empty: the default


@DATASET_REGISTRY.register()
class Folder(BenchmarkDataset):
    """Images below DATASET.ROOT in one of these layouts, or listed in DATASET.CSV.

    `{train,val,test}/<class>/*.jpg`; the same without val, which is then drawn from train; or
    `<class>/*.jpg`, of which 50% are for training, 20% for validation, 30% for testing. What is
    drawn depends only on the names of a class and its files, so it is the same everywhere, and
    another class changes nothing for the rest.
    """

    dataset_dir = "own images"  # only a name for messages: DATASET.ROOT itself is the folder

    def __init__(self, cfg: CfgNode) -> None:
        self.settings = cfg.DATASET
        if self.settings.TEMPLATE:
            self.template = checked_template(self.settings.TEMPLATE)
        super().__init__(cfg)

    @classmethod
    def locate(cls, root: Path) -> tuple[Path, Path]:
        """Returns `root` twice: it is the dataset's own folder."""
        root = root.expanduser().absolute()
        return root, root

    def find_folders(self, root: Path) -> None:
        """DATASET.ROOT is the dataset's folder; without it, the folder that the CSV file is in."""
        self.csv_file = None
        if self.settings.CSV:
            self.csv_file = find_file(self.settings.CSV, root)
            if self.csv_file is None:
                raise MissingFileError(
                    f"DATASET.CSV is {self.settings.CSV!r}, which is no file, neither here nor "
                    f"in {root}"
                )
            if not self.settings.ROOT:
                root = self.csv_file.parent
        elif not self.settings.ROOT:
            raise DataError(
                "DATASET.ROOT is empty; name the folder that holds the class folders (--root), or "
                "a file with the columns path,label (DATASET.CSV)"
            )
        self.dataset_dir, self.image_dir = map(str, self.locate(root))

    def read_data(self) -> Split:
        """Returns the items; raises DataError or MissingFileError with what is wrong."""
        root = Path(self.image_dir)
        if not root.is_dir():
            raise MissingFileError(
                f"DATASET.ROOT (--root) is {root}, which does not exist; it must name the folder "
                "that holds your class folders, or train and test"
            )
        source = self.csv_file or root
        parts = read_csv(self.csv_file, root) if self.csv_file else read_folders(root)
        classes = ordered_classes(source, parts)
        names = class_names(self.settings.CLASSNAMES, classes, root)
        if all(map(str.isdecimal, names)):
            logger.warning(
                "Note: the prompts will say '0', '1', ...; give names with DATASET.CLASSNAMES"
            )
        label_of = {name: label for label, name in enumerate(classes)}
        train, val, test = (
            [Datum(path, label_of[c], classname=names[label_of[c]]) for path, c in rows]
            for rows in fill_parts(source, parts)
        )
        return train, val, test


def checked_template(template: str) -> str:
    """Returns the template; raises DataError unless it has one {} and no other braces."""
    if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
        raise DataError(
            f"DATASET.TEMPLATE is {template!r}; expected a text with one {{}} in place of the "
            "class name, such as 'a photo of a {}, a type of bird.'"
        )
    return template


# --- folders --------------------------------------------------------------------------------------


def ordered_classes(source: object, parts: dict[str, list[Row]]) -> list[str]:
    """Returns the classes in label order: sorted by name, or by number if all are numbers."""
    found = {part: {name for _, name in rows} for part, rows in parts.items()}
    trained = found.get("train", found.get(UNSPLIT, set()))
    for part, names in found.items():
        unknown = sorted(names - trained)
        if unknown:
            raise DataError(
                f"{source}: {part} has classes that train does not have ({len(unknown)}): "
                f"{listed(unknown)}. Add training images of them, or take them out."
            )
    if len(trained) < 2:
        raise DataError(
            f"{source} has {len(trained)} class ({listed(sorted(trained)) or 'none'}); there must "
            "be two or more to tell apart"
        )
    if not isinstance(source, Path) or source.is_dir() or not all(map(str.isdecimal, trained)):
        return sorted(trained)
    numbers = {int(name): name for name in sorted(trained)}
    gap = [n for n in range(max(numbers) + 1) if n not in numbers]
    if gap or len(numbers) < len(trained):
        raise DataError(
            f"{source}: the labels are numbers up to {max(numbers)}, but {listed(gap) or 'none'} "
            "of those in between are missing; count from 0 without gaps, each label written in one "
            "way, or write class names instead"
        )
    return [numbers[n] for n in sorted(numbers)]


def class_names(setting: Any, classes: list[str], root: Path) -> list[str]:
    """Returns the names for the prompts in label order.

    Args:
        setting: DATASET.CLASSNAMES. A list in label order; "one,two,three"; or a file: JSON with
            such a list or with {class: name}, or text with a name a line, or "class name" lines.
        classes: folders or labels as they are called, in label order.
        root: where the file is looked for, too.
    """
    if setting is None or setting == "":
        return list(classes)
    names = _read_names(setting, classes, root) if isinstance(setting, str) else setting
    if isinstance(names, dict):
        unknown = [key for key in names if key not in classes]
        if unknown:
            raise DataError(
                f"DATASET.CLASSNAMES names classes that the data does not have ({len(unknown)}): "
                f"{listed(unknown)}.{closest(unknown[0], classes)}"
            )
        names = [names.get(name, name) for name in classes]
    if not isinstance(names, list | tuple) or not all(str(name).strip() for name in names):
        raise DataError(
            f"DATASET.CLASSNAMES is {names!r}; expected names in label order, or a file"
        )
    if len(names) != len(classes):
        raise DataError(
            f"DATASET.CLASSNAMES has {len(names)} names, but the data has {len(classes)} classes: "
            f"{listed(classes)}. Give one name a class, in this order."
        )
    return [str(name).strip() for name in names]


def _read_names(setting: str, classes: list[str], root: Path) -> Any:
    file = find_file(setting, root)
    if file is None and "," in setting:
        return setting.split(",")
    if file is None:
        raise MissingFileError(
            f"DATASET.CLASSNAMES is {setting!r}, which is no file, neither here nor in {root}; "
            "expected a file, or names separated by commas"
        )
    if file.suffix.lower() == ".json":
        return read_json(file)
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    lines = [line for line in lines if line]
    pairs = [line.split("\t" if "\t" in line else None, 1) for line in lines]
    if all(len(pair) == 2 and pair[0].strip() in classes for pair in pairs):
        return {name.strip(): text.strip() for name, text in pairs}
    return lines


def fill_parts(
    source: object, parts: dict[str, list[Row]]
) -> tuple[list[Row], list[Row], list[Row]]:
    """Returns train, val and test; draws what is not there."""
    if UNSPLIT in parts:
        too_few = [name for name, paths in _by_class(parts[UNSPLIT]).items() if len(paths) < 3]
        if too_few:
            raise DataError(
                f"{source}: classes with fewer than 3 images ({len(too_few)}) cannot be split into "
                f"train, val and test: {listed(too_few)}. Add images or take the classes out."
            )
        logger.info(
            f"Splitting into {1 - P_VAL - P_TEST:.0%} train, {P_VAL:.0%} val, {P_TEST:.0%} test"
        )
        rest, test = _draw(parts[UNSPLIT], P_TEST)
        return *_draw(rest, P_VAL / (1 - P_TEST)), test
    if "val" in parts:
        return parts["train"], parts["val"], parts["test"]
    logger.info(f"There is no validation part: {P_VAL:.0%} of train are taken for it")
    return *_draw(parts["train"], P_VAL), parts["test"]


def _draw(rows: list[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Takes a share of each class, one image at least, but never the only one."""
    kept, taken = [], []
    for name, paths in _by_class(rows).items():
        n_taken = min(max(1, round(len(paths) * share)), len(paths) - 1)
        # Its own generator: other classes, and how many there are, do not matter.
        chosen = set(random.Random(name).sample(range(len(paths)), n_taken))
        kept += [(path, name) for i, path in enumerate(paths) if i not in chosen]
        taken += [(path, name) for i, path in enumerate(paths) if i in chosen]
    return kept, taken


def _by_class(rows: list[Row]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path, name in rows:
        groups.setdefault(name, []).append(path)
    return groups
