"""What all data sets of the benchmark share: split file, few-shot sample, base and new classes."""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path
from types import ModuleType

from yacs.config import CfgNode

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import DataError, MissingFileError, listdir_nohidden, read_json, write_json
from dassl.utils.errors import not_one_of
from dassl.utils.files import PathLike, listed
from datasets.few_shot import few_shot_sample

SPLITS = Path(__file__).parent / "splits"  # split files that ship with the project
SUBSAMPLES = ("all", "base", "new")
MAX_VAL_SHOTS = 4  # few-shot validation images per class, CoOp (arXiv 2109.01134), section 4.1

Split = tuple[list[Datum], list[Datum], list[Datum]]  # train, val, test


def extend_cfg(cfg: CfgNode) -> None:
    """Adds the settings of this package to a configuration."""
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base (first half, rounded up), new (the rest)


class BenchmarkDataset(DatasetBase):
    """A data set with a fixed split, of which few shots and half of the classes may be asked for.

    A subclass names its folders and files; `read_data` may be overridden where the official
    layout is another.

    Attributes:
        dataset_dir: folder below DATASET.ROOT.
        image_dir: folder below `dataset_dir` that the paths in the split file start from.
        split_file: the official split file's name; looked for in `dataset_dir`, then among the
            files that ship with the project; if it is in neither, `build_split` makes it.
        template: zero-shot prompt, with {} for the class name.
    """

    image_dir = ""
    split_file = ""
    template = "a photo of a {}."

    def __init__(self, cfg: CfgNode) -> None:
        root = Path(cfg.DATASET.ROOT).expanduser().absolute()
        self.dataset_dir = str(root / self.dataset_dir)
        self.image_dir = str(Path(self.dataset_dir) / self.image_dir)
        train, val, test = self.read_data()
        if cfg.DATASET.NUM_SHOTS >= 1:
            train, val = few_shot_sample(
                self, train, val, cfg.DATASET.NUM_SHOTS, MAX_VAL_SHOTS, cfg.SEED
            )
        train, val, test = self.subsample_classes(
            train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES
        )
        super().__init__(train_x=train, val=val, test=test)

    def read_data(self) -> Split:
        """Returns the training, validation and test items of the full data set.

        Raises:
            MissingFileError: the image folder, or files that the split names, do not exist.
        """
        self.require_folder(self.image_dir)
        own = Path(self.dataset_dir) / self.split_file
        shipped = SPLITS / f"{self.split_file}.gz"
        if own.exists() or shipped.exists():
            path = own if own.exists() else shipped
            split = self.read_split(path, self.image_dir)
            require_files(path, self.image_dir, split)
            return split
        split = self.build_split()
        self.save_split(*split, own, self.image_dir)
        return split

    def build_split(self) -> Split:
        """Draws a split where there is no official one; always the same for the same files."""
        return self.read_and_split_data(self.image_dir, rng=random.Random(1))

    def require_folder(self, folder: PathLike) -> None:
        """Raises MissingFileError with advice unless `folder` exists."""
        if not Path(folder).is_dir():
            raise MissingFileError(
                f"{type(self).__name__} was looked for in {folder}, which does not exist. "
                f"--root (DATASET.ROOT) must name the folder that holds "
                f"'{Path(self.dataset_dir).name}'."
            )

    # --- split files ------------------------------------------------------------------------------

    @staticmethod
    def read_split(filepath: PathLike, path_prefix: PathLike) -> Split:
        """Reads a split file, {"train": [[path, label, class name], ...], "val": ..., "test": ...}.

        Args:
            filepath: the file; gzipped if its name ends in .gz.
            path_prefix: folder that the paths in it start from.
        """
        print(f"Reading split from {filepath}")
        if str(filepath).endswith(".gz"):
            with gzip.open(filepath, "rt", encoding="utf-8") as file:
                lists = json.load(file)
        else:
            lists = read_json(filepath)
        try:
            return tuple(
                [
                    Datum(impath=str(Path(path_prefix) / path), label=int(label), classname=name)
                    for path, label, name in lists[part]
                ]
                for part in ("train", "val", "test")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{filepath} is no split file ({error!r}): expected lists of [path, label, class "
                'name] under "train", "val" and "test". Delete it to use the official one.'
            ) from None

    @staticmethod
    def save_split(
        train: list[Datum],
        val: list[Datum],
        test: list[Datum],
        filepath: PathLike,
        path_prefix: PathLike,
    ) -> None:
        """Writes a split file; paths in it are relative to `path_prefix`."""
        split = {
            part: [
                [Path(item.impath).relative_to(path_prefix).as_posix(), item.label, item.classname]
                for item in items
            ]
            for part, items in (("train", train), ("val", val), ("test", test))
        }
        write_json(split, filepath)
        print(f"Saved split to {filepath}")

    @staticmethod
    def read_and_split_data(
        image_dir: PathLike,
        p_trn: float = 0.5,
        p_val: float = 0.2,
        ignored: tuple[str, ...] | list[str] = (),
        new_cnames: dict[str, str] | None = None,
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
        print(
            f"Splitting into {p_trn:.0%} train, {p_val:.0%} val, and {1 - p_trn - p_val:.0%} test"
        )
        folders = [f for f in listdir_nohidden(image_dir) if f not in ignored]
        train: list[Datum] = []
        val: list[Datum] = []
        test: list[Datum] = []
        for label, folder in enumerate(folders):
            paths = [str(Path(image_dir) / folder / f) for f in _files(Path(image_dir) / folder)]
            n_train, n_val = round(len(paths) * p_trn), round(len(paths) * p_val)
            if min(n_train, n_val, len(paths) - n_train - n_val) < 1:
                raise DataError(
                    f"class folder {Path(image_dir) / folder} holds {len(paths)} images, too few "
                    "to split into train, val and test; add images or remove the folder"
                )
            rng.shuffle(paths)
            name = (new_cnames or {}).get(folder, folder)
            items = [Datum(impath=p, label=label, classname=name) for p in paths]
            train += items[:n_train]
            val += items[n_train : n_train + n_val]
            test += items[n_train + n_val :]
        return train, val, test

    @staticmethod
    def split_trainval(
        trainval: list[Datum], p_val: float = 0.2, rng: random.Random | ModuleType = random
    ) -> tuple[list[Datum], list[Datum]]:
        """Splits training items, class by class, into training and validation."""
        print(f"Splitting trainval into {1 - p_val:.0%} train and {p_val:.0%} val")
        train: list[Datum] = []
        val: list[Datum] = []
        for label, items in DatasetBase.split_dataset_by_label(trainval).items():
            n_val = round(len(items) * p_val)
            if n_val < 1:
                raise DataError(f"class {label} has {len(items)} images, too few for a val split")
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
        print(f"SUBSAMPLE {subsample.upper()} CLASSES!")
        selected = labels[:half] if subsample == "base" else labels[half:]
        if not selected:
            raise DataError(f"with {len(labels)} class there are no {subsample} classes")
        new_label = {label: i for i, label in enumerate(selected)}
        return [
            [
                Datum(item.impath, new_label[item.label], item.domain, item.classname)
                for item in items
                if item.label in new_label
            ]
            for items in args
        ]


def _files(folder: Path) -> list[str]:
    names = listdir_nohidden(folder)
    if not names:
        raise DataError(f"class folder {folder} holds no images; add some or remove the folder")
    return names


def require_files(source: PathLike, image_dir: PathLike, split: Split) -> None:
    """Raises MissingFileError unless every image of a split exists; lists each folder once."""
    wanted = [Path(item.impath) for items in split for item in items]
    folders = {path.parent for path in wanted}
    there = {f: set(listdir_nohidden(f)) if f.is_dir() else set() for f in folders}
    missing = [str(path) for path in wanted if path.name not in there[path.parent]]
    if missing:
        raise MissingFileError(
            f"{len(missing):,} of the {len(wanted):,} images that {source} names are missing: "
            f"{listed(missing)}. Unpack the data set anew into {image_dir}; to use other images, "
            "put a split file of your own beside them."
        )
