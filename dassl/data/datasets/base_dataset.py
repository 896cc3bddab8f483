"""The items of a dataset, and what every dataset can do with them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image
from yacs.config import CfgNode

from dassl.utils.download import download, download_gdrive, extract
from dassl.utils.errors import DataError, not_one_of
from dassl.utils.logger import get_logger

logger = get_logger(__name__)


class Datum:
    """One image: where it is and what it shows.

    Args:
        impath: path of the image file.
        label: class, counted from 0.
        domain: domain, counted from 0 (photograph, sketch, ...), where a dataset has several.
        classname: name of the class.
    """

    def __init__(
        self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""
    ) -> None:
        if not isinstance(impath, str):
            raise TypeError(f"impath is {impath!r}; expected a str")
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        return self._impath

    @property
    def label(self) -> int:
        return self._label

    @property
    def domain(self) -> int:
        return self._domain

    @property
    def classname(self) -> str:
        return self._classname

    def __repr__(self) -> str:
        return f"Datum({self.impath!r}, {self.label}, {self.domain}, {self.classname!r})"


class DatasetBase:
    """Holds the splits of a dataset and derives labels and class names from the training split.

    Args:
        train_x: labelled training items.
        train_u: unlabelled training items, for methods that use some.
        val: validation items.
        test: test items.

    Attributes:
        provenance: plain data on where the items come from, for the records of results.
    """

    dataset_dir = ""  # folder of the dataset below DATASET.ROOT
    domains: tuple[str, ...] | list[str] = ()  # names of all domains

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ) -> None:
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self.provenance: dict[str, Any] = {}
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    @classmethod
    def image_reader(cls, cfg: CfgNode) -> Callable[[str], Image.Image] | None:
        """Returns what reads an image at a path as RGB; None: `read_image`.

        A reader says by its attribute `identity` what decides on the pixels that it returns, so
        that what is computed from them can be kept.
        """
        return None

    def check_images(self, paths: list[str]) -> None:
        """Raises DataError if images cannot be read; quick, as it comes before each run.

        Args:
            paths: of the images that the run reads.
        """

    @property
    def train_x(self) -> list[Datum] | None:
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        return self._val

    @property
    def test(self) -> list[Datum] | None:
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names in label order; two classes may share a name."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: Iterable[Datum]) -> int:
        """Returns the largest label plus one."""
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """Returns {label: name} and the names in label order."""
        names = {item.label: item.classname for item in data_source}
        mapping = {label: names[label] for label in sorted(names)}
        return mapping, list(mapping.values())

    def check_input_domains(
        self, source_domains: Iterable[str], target_domains: Iterable[str]
    ) -> None:
        """Raises DataError (a ValueError) if a domain is not one of this dataset's."""
        self.is_input_domain_valid(source_domains)
        self.is_input_domain_valid(target_domains)

    def is_input_domain_valid(self, input_domains: Iterable[str]) -> None:
        """Raises DataError (a ValueError) if a domain is not one of this dataset's."""
        for domain in input_domains:
            if domain not in self.domains:
                raise DataError(not_one_of("the domain", domain, self.domains))

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Fetches an archive to `dst` and unpacks it in the same folder.

        Args:
            url: address of the archive.
            dst: where the archive goes; it stays there, and a second call does not fetch it anew.
            from_gdrive: `url` is a file on Google Drive.
        """
        (download_gdrive if from_gdrive else download)(url, dst)
        extract(dst, Path(dst).parent)

    def generate_fewshot_dataset(
        self,
        *data_sources: list[Datum],
        num_shots: int = -1,
        repeat: bool = False,
        rng: random.Random | ModuleType = random,
    ) -> Any:
        """Draws `num_shots` items of each class.

        A class with fewer items is taken whole and in order, without a draw; with `repeat`, it is
        filled up by drawing with replacement. Classes come in the order in which they first
        appear, the items of a class in the order drawn.

        Args:
            data_sources: one or several lists of items, drawn from one after the other.
            num_shots: items per class; below 1: everything is handed back as it came.
            repeat: fill up short classes.
            rng: generator of the draws; Python's global one unless given.

        Returns:
            A list of items for one source, else a list of such lists.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        logger.info(f"Creating a {num_shots}-shot dataset")
        output = []
        for source in data_sources:
            sample: list[Datum] = []
            for items in self.split_dataset_by_label(source).values():
                if len(items) >= num_shots:
                    sample += rng.sample(items, num_shots)
                elif repeat:
                    sample += rng.choices(items, k=num_shots)
                else:
                    sample += items
            output.append(sample)
        return output[0] if len(output) == 1 else output

    @staticmethod
    def split_dataset_by_label(data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Groups items by label; labels in the order in which they first appear."""
        groups = defaultdict(list)
        for item in data_source:
            groups[item.label].append(item)
        return groups

    @staticmethod
    def split_dataset_by_domain(data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Groups items by domain; domains in the order in which they first appear."""
        groups = defaultdict(list)
        for item in data_source:
            groups[item.domain].append(item)
        return groups
