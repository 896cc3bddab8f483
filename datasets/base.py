"""What all datasets of the benchmark share: split file, few-shot sample, base and new classes."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from yacs.config import CfgNode

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import DataError, MissingFileError, listdir_nohidden, read_json, write_json
from dassl.utils.errors import not_one_of
from dassl.utils.files import PathLike, listed
from dassl.utils.logger import get_logger
from dassl.utils.tools import without_garbage_collection
from datasets.few_shot import describe_sample, few_shot_sample, sample_info, split_digest
from datasets.readers.derived_files import derived_paths, save_derived
from datasets.readers.folder_index import image_names
from datasets.readers.image_checks import ImageChecks, check_image, require_images
from datasets.readers.image_tree import PassedOver, is_no_class
from datasets.readers.own_keys import require_defaults
from datasets.readers.roots import download_command, require_root
from datasets.readers.split_files import (
    Split,
    check_split,
    files_now,
    is_official,
    is_ours,
    locate_files,
    paths_below,
    read_split_file,
    split_lists,
)
from datasets.resources import CLASSNAMES, SPLITS

logger = get_logger(__name__)

SUBSAMPLES = ("all", "base", "new")


def extend_cfg(cfg: CfgNode) -> None:
    """Adds the settings of this package to a configuration."""
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base (first half, rounded up), new (the rest)


class BenchmarkDataset(DatasetBase):
    """A dataset with a fixed split, of which few shots and half of the classes may be asked for.

    A subclass names its folders and files; `build_split` is overridden where the dataset has
    annotation files, `read_data` where there is no such thing as a split.

    Attributes:
        dataset_dir: folder below DATASET.ROOT.
        image_dir: folder below `dataset_dir` that the paths in the split file start from.
        other_places: (dataset_dir, image_dir) pairs where the same content may lie as well, such
            as where torchvision puts it; the first that exists counts.
        landmark: folder below `image_dir` by which the right place is told, if that is not enough.
        split_file: the official split file's name; looked for in `dataset_dir`, then among the
            files that ship with the project; if it is in neither, `build_split` makes it.
            Empty: there is none, and `build_split` is the official way.
        split_blob: id of the official split file as a blob of git, where it does not ship.
        ignored: folders that are no classes, where a split is built.
        new_cnames: {folder: class name} of the classes that are not called as their folder.
        template: zero-shot prompt, with {} for the class name.
        few_shot: whether DATASET.NUM_SHOTS draws a sample; not for data that are test data only.
        max_val_shots: validation images per class that go with a sample (CoOp, arXiv 2109.01134,
            section 4.1); 0: the validation list stays whole.
        few_shot_info: {"shots", "seed", "digest", "published"} of the sample; empty without one.
        reads_own_keys: whether DATASET.CLASSNAMES, TEMPLATE, BACKGROUND and the like count.
        root: DATASET.ROOT in full.
        split_digest: SHA-256 over train, val and test, before anything was drawn.
        split_source: what the split is, in words: "official split", "split built here", "split file
            of one's own", ...
    """

    image_dir = ""
    other_places: tuple[tuple[str, str], ...] = ()
    landmark = ""
    split_file = ""
    split_blob = ""
    ignored: tuple[str, ...] = ()
    new_cnames: Mapping[str, str] = MappingProxyType({})
    template = "a photo of a {}."
    few_shot = True
    split_source = "split built here"
    reads_own_keys = False
    max_val_shots = 4

    def __init__(self, cfg: CfgNode) -> None:
        self.few_shot_info: dict[str, Any] = {}
        if not self.reads_own_keys:
            require_defaults(cfg.DATASET)
        self.find_folders(Path(cfg.DATASET.ROOT).expanduser().absolute())
        with without_garbage_collection():  # ImageNet has 1.3 million items
            split = self.read_data()
            check_split(type(self).__name__, split)
            self.split_digest = split_digest(self, split)
            train, val, test = self.draw_few_shots(cfg, split)
        self.all_class_names = self.get_lab2cname(train)[1]  # other people's LASP asks for it
        chosen = cfg.DATASET.SUBSAMPLE_CLASSES
        train, val, test = self.subsample_classes(train, val, test, subsample=chosen)
        super().__init__(train_x=train, val=val or None, test=test)
        self.provenance = {"split_digest": self.split_digest, "few_shot": self.few_shot_info}

    def draw_few_shots(self, cfg: CfgNode, split: Split) -> Split:
        """Returns the split with what DATASET.NUM_SHOTS leaves of train and val."""
        train, val, test = split
        shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
        if shots < 1 or not self.few_shot:
            return split
        from_val = val if self.max_val_shots else []
        sample = few_shot_sample(
            self, train, from_val, shots, self.max_val_shots, seed, self.split_digest
        )
        self.few_shot_info = sample_info(self, sample, shots, seed)
        logger.info(describe_sample(type(self).dataset_dir, self.few_shot_info))
        short = [
            (items[0].classname, len(items))
            for items in self.split_dataset_by_label(train).values()
            if len(items) < shots
        ]
        if short:
            logger.warning(
                f"Note: all images are taken where a class has fewer than {shots} to train on: "
                f"{listed([f'{name} ({count})' for name, count in short])}"
            )
        return sample[0], sample[1] if self.max_val_shots else val, test

    def read_data(self) -> Split:
        """Returns the training, validation and test items of the full dataset.

        Raises:
            MissingFileError: the image folder, or files that the split names, do not exist.
        """
        self.require_folder(self.image_dir)
        if not self.split_file:
            self.split_source = "the dataset's own split"
            split = self.build_split()
            return locate_files("the dataset's lists", self.image_dir, split)
        own, kept = derived_paths(self.dataset_dir, self.split_file)
        shipped = SPLITS / f"{self.split_file}.gz"
        for path in (own, shipped, kept):
            if path.is_file() and not self._is_outdated(path):
                built = path == kept or b'"note"' in path.read_bytes()[:1000]  # by `save_derived`
                split = self.read_split(path, self.image_dir)
                official = not built and is_official(
                    path, split, self.image_dir, shipped, self.split_blob
                )
                own_file = "split built here" if built else "split file of one's own"
                self.split_source = "official split" if official else own_file
                return locate_files(path, self.image_dir, split)
        self.split_source = "split built here"
        note = f"built from the files of the dataset; not the official {self.split_file}"
        logger.warning(f"{type(self).__name__}: there is no official {own}. Its split is {note}.")
        split = locate_files("the dataset's lists", self.image_dir, self.build_split())
        content = {"note": note, "built_from": files_now(self.dataset_dir)}
        content |= split_lists(split, self.image_dir)
        if path := save_derived(content, self.dataset_dir, self.split_file):
            logger.info(f"Saved split to {path}")
        return split

    def _is_outdated(self, path: Path) -> bool:
        """Whether we built a split file from other files than there are now."""
        if not is_ours(path):
            return False
        content = read_json(path)
        known = content.get("built_from") if isinstance(content, dict) else None
        before = known or "files that it does not name"
        now = files_now(self.dataset_dir)
        if before != now:
            logger.warning(
                f"Note: {path} was built from {before}, and {self.dataset_dir} holds {now}; "
                "building it anew"
            )
        return before != now

    def build_split(self) -> Split:
        """Draws a split where there is no official one; always the same for the same files."""
        return self.read_and_split_data(
            self.image_dir, ignored=self.ignored, new_cnames=self.new_cnames, rng=random.Random(1)
        )

    # --- folders ----------------------------------------------------------------------------------

    @classmethod
    def locate(cls, root: Path) -> tuple[Path, Path]:
        """Returns the full paths of the dataset and of its images; reads nothing.

        They are the first known place where there are images, or else upstream's.

        Args:
            root: DATASET.ROOT, the folder that holds all datasets.
        """
        root = root.expanduser().absolute()
        places = ((cls.dataset_dir, cls.image_dir), *cls.other_places)
        there = (place for place in places if root.joinpath(*place, cls.landmark).is_dir())
        folder, images = next(there, places[0])
        return root / folder, root / folder / images

    def find_folders(self, root: Path) -> None:
        """Makes `dataset_dir` and `image_dir` the full paths that `locate` returns.

        Raises:
            MissingFileError: `root` is no folder.
        """
        require_root(root)
        self.root = root
        upstream = root / self.dataset_dir / self.image_dir
        dataset_dir, image_dir = self.locate(root)
        if image_dir != upstream:
            logger.warning(
                f"Note: {type(self).__name__} is read from {image_dir}, as there is no "
                f"{upstream / self.landmark}"
            )
        self.dataset_dir, self.image_dir = str(dataset_dir), str(image_dir)

    def require_folder(self, folder: PathLike) -> None:
        """Raises MissingFileError with advice unless `folder` exists."""
        if not Path(folder).is_dir():
            name, home = type(self).__name__, Path(self.dataset_dir)
            also = "".join(f" (nor {'/'.join(filter(None, p))})" for p in self.other_places)
            fetch = download_command(name, self.root)
            raise MissingFileError(
                f"{name} was looked for in {folder}, which does not exist{also}. --root "
                f"(DATASET.ROOT) must name the folder that holds '{home.name}'."
                + (f" To fetch it:\n  {fetch}" if fetch else "")
            )

    def annotation(self, *names: str) -> Path:
        """Returns the first of these files below `dataset_dir` that exists.

        Raises:
            MissingFileError: there is none.
        """
        for name in names:
            path = Path(self.dataset_dir) / name
            if path.is_file():
                return path
        instead = f"; or put {self.split_file} there" if self.split_file else ""
        raise MissingFileError(
            f"{type(self).__name__} needs {names[0]} in {self.dataset_dir} to tell which image is "
            f"what, and it is not there. Unpack the dataset's annotations there{instead}."
        )

    def relative_paths(self, items: list[Datum]) -> list[str]:
        """Returns the paths below the dataset's folder that upstream's layout would have."""
        prefix = type(self).image_dir
        paths = paths_below(self.image_dir, items)
        return [f"{prefix}/{path}" for path in paths] if prefix else paths

    def check_images(self, paths: list[str]) -> None:
        """Looks at headers and ends of files, once: see `ImageChecks`."""
        checks = ImageChecks(check_image, self.dataset_dir, "as the public code reads")
        advice = f"Fetch the file anew, or unpack the dataset anew into {self.dataset_dir}."
        require_images(checks, paths, advice, f"{type(self).__name__}: ")

    # --- split files ------------------------------------------------------------------------------

    @staticmethod
    def read_split(filepath: PathLike, path_prefix: PathLike) -> Split:
        """Reads a split file; the paths in it start from `path_prefix` (see `read_split_file`)."""
        logger.info(f"Reading split from {filepath}")
        split, note = read_split_file(Path(filepath), path_prefix)
        if note:  # one of ours, see read_data
            logger.warning(f"Note: this split was {note}")
        return split

    @staticmethod
    def save_split(
        train: list[Datum],
        val: list[Datum],
        test: list[Datum],
        filepath: PathLike,
        path_prefix: PathLike,
    ) -> None:
        """Writes a split file; paths in it are relative to `path_prefix`."""
        write_json(split_lists((train, val, test), path_prefix), filepath)
        logger.info(f"Saved split to {filepath}")

    @staticmethod
    def read_and_split_data(
        image_dir: PathLike,
        p_trn: float = 0.5,
        p_val: float = 0.2,
        ignored: tuple[str, ...] | list[str] = (),
        new_cnames: Mapping[str, str] | None = None,
        rng: random.Random | ModuleType = random,
    ) -> Split:
        """Splits a folder of class folders, class by class.

        Args:
            image_dir: holds one folder a class; labels follow the sorted folder names.
            p_trn, p_val: shares of training and validation; the rest is for testing.
            ignored: folders to pass over.
            new_cnames: class names that differ from the folder's.
            rng: generator of the shuffles.

        Raises:
            DataError: a class folder holds too few images to give each part one.
        """
        logger.info(
            f"Splitting into {p_trn:.0%} train, {p_val:.0%} val, and {1 - p_trn - p_val:.0%} test"
        )
        folders = [
            f for f in listdir_nohidden(image_dir) if f not in ignored and not is_no_class(f)
        ]
        folders = [f for f in folders if (Path(image_dir) / f).is_dir()]
        classes, passed = [], PassedOver()
        for label, folder in enumerate(folders):
            start = str(Path(image_dir) / folder) + os.sep
            name = (new_cnames or {}).get(folder, folder)
            images = image_names(Path(start), passed)
            classes.append([Datum(start + f, label, classname=name) for f in images])
        passed.say(image_dir)
        return split_classes(classes, p_trn, p_val, rng)

    @staticmethod
    def split_trainval(
        trainval: list[Datum], p_val: float = 0.2, rng: random.Random | ModuleType = random
    ) -> tuple[list[Datum], list[Datum]]:
        """Splits training items, class by class, into training and validation."""
        logger.info(f"Splitting trainval into {1 - p_val:.0%} train and {p_val:.0%} val")
        train: list[Datum] = []
        val: list[Datum] = []
        for label, items in DatasetBase.split_dataset_by_label(trainval).items():
            n_val = round(len(items) * p_val)
            if n_val < 1:
                raise DataError(f"class {label} has too few images for a val split: {len(items)}")
            rng.shuffle(items)
            val += items[:n_val]
            train += items[n_val:]
        return train, val

    # --- base and new classes ---------------------------------------------------------------------

    @staticmethod
    def subsample_classes(*args: list[Datum], subsample: str = "all") -> tuple | list:
        """Keeps the base classes or the new ones, and counts their labels from 0.

        Base is the first half of the sorted labels of the first list, rounded up (CoCoOp, arXiv
        2203.05557, section 4.1); other lists lose what is not selected.

        Raises:
            DataError: `subsample` is none of all, base, new, or nothing is left.
        """
        if subsample not in SUBSAMPLES:
            raise DataError(not_one_of("DATASET.SUBSAMPLE_CLASSES", subsample, SUBSAMPLES))
        if subsample == "all":
            return args
        labels = sorted({item.label for item in args[0]})
        half = math.ceil(len(labels) / 2)
        logger.info(f"SUBSAMPLE {subsample.upper()} CLASSES!")
        selected = labels[:half] if subsample == "base" else labels[half:]
        if len(selected) < 2:
            raise DataError(
                f"DATASET.SUBSAMPLE_CLASSES {subsample} leaves {len(selected)} of {len(labels)} "
                "classes; there must be two or more to tell apart"
            )
        new_label = {label: i for i, label in enumerate(selected)}
        return [
            [
                Datum(item.impath, new_label[item.label], item.domain, item.classname)
                for item in items
                if item.label in new_label
            ]
            for items in args
        ]


def split_classes(
    classes: Iterable[list[Datum]],
    p_trn: float = 0.5,
    p_val: float = 0.2,
    rng: random.Random | ModuleType = random,
) -> Split:
    """Shuffles the items of each class in place and divides them (see `read_and_split_data`)."""
    train, val, test = [], [], []
    for items in classes:
        n_train, n_val = round(len(items) * p_trn), round(len(items) * p_val)
        if min(n_train, n_val, len(items) - n_train - n_val) < 1:
            raise DataError(
                f"too few images to split into train, val and test, {len(items)}: add some to "
                f"{Path(items[0].impath).parent}, or drop the class {items[0].classname}"
            )
        rng.shuffle(items)
        train += items[:n_train]
        val += items[n_train : n_train + n_val]
        test += items[n_train + n_val :]
    return train, val, test


def shipped_classnames(folder: str) -> list[str]:
    """Returns the class names in label order of the dataset whose folder is called `folder`."""
    return read_json(CLASSNAMES)[folder]
