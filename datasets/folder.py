"""Images of your own: a folder of class folders, or a CSV file; docs/own_data.md says how."""

from __future__ import annotations

import random
from pathlib import Path

from yacs.config import CfgNode

from dassl.command import command
from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import DataError, MissingFileError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from dassl.utils.text import composed, unseen
from datasets.base import BenchmarkDataset
from datasets.readers.class_names import alike_in_prompts, class_names
from datasets.readers.class_order import ordered_classes, with_plain_numbers
from datasets.readers.copies import across_parts, describe_copies
from datasets.readers.image_checks import ImageChecks
from datasets.readers.image_tree import PassedOver
from datasets.readers.own_csv import read_csv
from datasets.readers.own_folders import read_folders
from datasets.readers.own_keys import OWN_KEYS
from datasets.readers.parts import UNSPLIT, Parts, Row, each_file_once
from datasets.readers.pictures import PictureReader
from datasets.readers.split_files import PARTS, Split
from datasets.readers.text_files import find_file

logger = get_logger(__name__)

P_VAL, P_TEST = 0.2, 0.3  # shares of each class, as in the splits of CoOp's datasets
NO_LABEL = ("nan", "none", "null", "n/a", "#n/a", "<na>")  # as programs write it
SHOWN = 12  # classes whose names are logged


def extend_cfg(cfg: CfgNode) -> None:
    """Adds the settings of this dataset to a configuration."""
    for key, default in OWN_KEYS.items():
        cfg.DATASET[key] = default


@DATASET_REGISTRY.register()
class Folder(BenchmarkDataset):
    """Images below DATASET.ROOT in one of these layouts, or listed in DATASET.CSV.

    `{train,val,test}/<class>/*.jpg`; the same without val, which is then drawn from train; or
    `<class>/*.jpg`, of which 50% are for training, 20% for validation, 30% for testing. What is
    drawn depends only on the names of a class and its files, so it is the same everywhere, and
    another class changes nothing for the rest.
    """

    reads_own_keys = True
    dataset_dir = "own images"  # only a name for messages: DATASET.ROOT itself is the folder

    def __init__(self, cfg: CfgNode) -> None:
        self.settings = cfg.DATASET
        self.reader = self.image_reader(cfg)
        if self.settings.TEMPLATE:
            self.template = checked_template(self.settings.TEMPLATE)
        super().__init__(cfg)
        self.provenance.update(self.origin)

    @classmethod
    def image_reader(cls, cfg: CfgNode) -> PictureReader:
        """Returns what reads the images: their true range, orientation and transparency count."""
        return PictureReader(cfg.DATASET.BACKGROUND, tuple(cfg.DATASET.VALUE_RANGE or ()))

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
            what = "is no folder" if root.exists() else "does not exist"
            raise MissingFileError(
                f"DATASET.ROOT (--root) is {root}, which {what}; it must name the folder that "
                "holds your class folders, or train and test"
            )
        source = self.csv_file or root
        parts, passed = self._parts(root)
        parts, linked = each_file_once(source, parts)
        for path in linked:
            passed.add("second links to an image", path)
        passed.say(root)
        classes = ordered_classes(source, parts)
        names = class_names(self.settings.CLASSNAMES, classes, root, self.settings.ENCODING)
        say_names(classes, names)
        label_of = {name: label for label, name in enumerate(classes)}
        split = tuple(
            [Datum(path, label_of[c], classname=names[label_of[c]]) for path, c in rows]
            for rows in fill_parts(source, parts)
        )
        copies = across_parts(dict(zip(PARTS, split)))
        if copies:
            logger.warning(
                f"Note: {describe_copies(copies)}: what is measured on such images says nothing. "
                f"Keep one of each; {command('datasets')} verify Folder lists them."
            )
        self.origin = {
            "class_names": [list(pair) for pair in zip(classes, names)],
            "passed_over": passed.counts(),
            "copies": len(copies),
        }
        return split

    def check_images(self, paths: list[str]) -> None:
        """All were looked at when the folders or the CSV file were read."""

    def _parts(self, root: Path) -> tuple[Parts, PassedOver]:
        checks = ImageChecks(self.reader.check, root, self.reader.identity)
        if self.csv_file is None:
            return read_folders(str(root), checks)
        parts = read_csv(self.csv_file, root, checks, self.settings.ENCODING)
        return with_plain_numbers(self.csv_file, parts), PassedOver()


def say_names(classes: list[str], names: list[str]) -> None:
    """Logs which class has which name in the prompts, and what may be odd about the names."""
    pairs = [f"{name} -> {text}" for name, text in zip(classes, names)]
    logger.info(f"Classes and their names in prompts: {listed(pairs, at_most=SHOWN)}")
    if not any(letter.isalpha() for name in names for letter in name):
        logger.warning(
            f"Note: the prompts will say {names[0]!r}, {names[1]!r}, ...; give names with "
            "DATASET.CLASSNAMES"
        )
    missing = [name for name in classes if name.strip().casefold() in NO_LABEL]
    if missing:
        logger.warning(f"Note: {listed(missing)} counts as a class; does it mean: no label?")
    groups = [" = ".join(map(repr, group)) for group in alike_in_prompts(names, classes)]
    if groups:
        logger.warning(f"Note: classes with one and the same prompt: {listed(groups)}")
    odd = [f"{name!r} ({unseen(name)[0]})" for name in names if unseen(name)]
    if odd:
        logger.warning(
            f"Note: names with characters that nobody sees, and that CLIP reads: {listed(odd)}"
        )


def checked_template(template: str) -> str:
    """Returns the template; raises DataError unless it has one {} and no other braces."""
    if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
        raise DataError(
            f"DATASET.TEMPLATE is {template!r}; expected a text with one {{}} in place of the "
            "class name, such as 'a photo of a {}, a type of bird.'"
        )
    return template


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
        chosen = set(random.Random(composed(name)).sample(range(len(paths)), n_taken))
        kept += [(path, name) for i, path in enumerate(paths) if i not in chosen]
        taken += [(path, name) for i, path in enumerate(paths) if i in chosen]
    return kept, taken


def _by_class(rows: list[Row]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path, name in rows:
        groups.setdefault(name, []).append(path)
    return groups
