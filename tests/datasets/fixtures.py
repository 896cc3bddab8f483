"""Makes small datasets in the official layouts: true class names, true lists, tiny images.

`make(name, root)` writes one dataset below `root` as its archives unpack, annotation files
included. Where an official split ships with the project, every file that it names is there. The
images are hard links to a few JPEGs, so that 50,000 of them take a second.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SHIPPED = Path(__file__).resolve().parents[2] / "datasets" / "resources"
CLASSNAMES = json.loads((SHIPPED / "classnames.json").read_text(encoding="utf-8"))
WNIDS = tuple(
    line.split()[0]
    for line in (SHIPPED / "imagenet_classnames.txt").read_text(encoding="utf-8").splitlines()
)
VARIANTS = json.loads(Path(__file__).with_name("imagenet_variants.json").read_text())

COUNTS = {  # registry name → classes, train, val, test; dataset_facts.csv of the benchmark's papers
    "ImageNet": (1000, 1281167, 50000, 50000),
    "Caltech101": (100, 4128, 1649, 2465),
    "OxfordPets": (37, 2944, 736, 3669),
    "StanfordCars": (196, 6509, 1635, 8041),
    "OxfordFlowers": (102, 4093, 1633, 2463),
    "Food101": (101, 50500, 20200, 30300),
    "FGVCAircraft": (100, 3334, 3333, 3333),
    "SUN397": (397, 15880, 3970, 19850),
    "DescribableTextures": (47, 2820, 1128, 1692),
    "EuroSAT": (10, 13500, 5400, 8100),
    "UCF101": (101, 7639, 1898, 3783),
    "ImageNetV2": (1000, 10000, 0, 10000),
    "ImageNetSketch": (1000, 50889, 0, 50889),
    "ImageNetA": (200, 7500, 0, 7500),
    "ImageNetR": (200, 30000, 0, 30000),
}
KEYS = {  # registry name → folder, name of the class list
    "ImageNet": ("imagenet", "imagenet"),
    "Caltech101": ("caltech-101", "caltech101"),
    "OxfordPets": ("oxford_pets", "oxford_pets"),
    "StanfordCars": ("stanford_cars", "stanford_cars"),
    "OxfordFlowers": ("oxford_flowers", "oxford_flowers"),
    "Food101": ("food-101", "food101"),
    "FGVCAircraft": ("fgvc_aircraft", "fgvc_aircraft"),
    "SUN397": ("sun397", "sun397"),
    "DescribableTextures": ("dtd", "dtd"),
    "EuroSAT": ("eurosat", "eurosat"),
    "UCF101": ("ucf101", "ucf101"),
    "ImageNetV2": ("imagenetv2", "imagenet"),
    "ImageNetSketch": ("imagenet-sketch", "imagenet"),
    "ImageNetA": ("imagenet-adversarial", "imagenet"),
    "ImageNetR": ("imagenet-rendition", "imagenet"),
}
SPLIT_NAMES = ("Caltech101", "DescribableTextures", "EuroSAT", "OxfordFlowers", "OxfordPets")
WITH_SPLIT = (*SPLIT_NAMES, "StanfordCars", "UCF101")  # whose official split ships
N_PICTURES = 40  # distinct ones; a file system allows some ten thousand links to a file


def classnames(name: str) -> list[str]:
    """Returns the true class names in label order."""
    names = CLASSNAMES[KEYS[name][1]]
    variant = VARIANTS.get({"ImageNetA": "imagenet_a", "ImageNetR": "imagenet_r"}.get(name, ""))
    return names if variant is None else [names[label] for label in variant]


def wnids(name: str) -> list[str]:
    """Returns the class folders of ImageNet or a variant, in label order."""
    variant = {"ImageNetA": "imagenet_a", "ImageNetR": "imagenet_r"}.get(name)
    return list(WNIDS) if variant is None else [WNIDS[label] for label in VARIANTS[variant]]


def official_split(name: str) -> dict[str, list]:
    """Returns the content of a split file that ships with the project."""
    path = SHIPPED / "splits" / f"split_zhou_{name}.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


@dataclass
class Tree:
    """Writes one dataset.

    Args:
        folder: the dataset's own.
        name: its registry name.
        per_class: images a class and part, where no official split names the files, or a cut of
            the official one, written beside the data as a split file; None: as many as there
            truly are.
    """

    folder: Path
    name: str
    per_class: int | None = None
    pictures: dict[int, Path] = field(default_factory=dict)

    def number(self, part: int, n_classes: int) -> list[int]:
        """Returns how many images each class has in a part (1 train, 2 val, 3 test)."""
        if self.per_class is not None:
            return [self.per_class] * n_classes
        total = COUNTS[self.name][part]
        return [total // n_classes + (label < total % n_classes) for label in range(n_classes)]

    def picture(self, label: int) -> Path:
        """Returns a JPEG of 40 x 36 pixels, the same for all images of a class."""
        key = label % N_PICTURES
        if key not in self.pictures:
            path = self.folder.parent / ".pictures" / f"{key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.RandomState(key).randint(0, 256, (9, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((40, 36)).save(path)
            self.pictures[key] = path
        return self.pictures[key]

    def images(self, folder: Path, names: Iterable[str], label: int) -> None:
        """Puts images of a class into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        source = self.picture(label)
        for name in names:
            os.link(source, folder / name)

    def text(self, path: str, lines: Iterable[str]) -> None:
        """Writes lines to a file in the dataset's folder."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def split(self) -> dict[str, list]:
        """Returns the official split or a cut of it; all its images are put into place."""
        lists = official_split(self.name)
        if self.per_class is not None:
            lists = {part: _cut(rows, self.per_class) for part, rows in lists.items()}
            if self.name == "OxfordFlowers":  # whose annotations number all images
                _number_anew(lists)
            self.text(f"split_zhou_{self.name}.json", [json.dumps(lists)])
        return lists

    def split_images(self, image_dir: str) -> dict[str, list]:
        """Puts all images of the split into place and returns the split."""
        lists = self.split()
        by_folder: dict[tuple[str, int], list[str]] = {}
        for path, label, _ in (row for rows in lists.values() for row in rows):
            folder, _, file = path.rpartition("/")
            by_folder.setdefault((folder, label), []).append(file)
        for (folder, label), files in by_folder.items():
            self.images(self.folder / image_dir / folder, files, label)
        return lists


def _cut(rows: list[list], per_class: int) -> list[list]:
    counts: dict[int, int] = {}
    kept = []
    for row in rows:
        counts[row[1]] = counts.get(row[1], 0) + 1
        if counts[row[1]] <= per_class:
            kept.append(row)
    return kept


def _number_anew(lists: dict[str, list]) -> None:
    rows = sorted((row for rows in lists.values() for row in rows), key=lambda row: row[0])
    for index, row in enumerate(rows, start=1):
        row[0] = f"image_{index:05d}.jpg"


def make(name: str, root: Path, per_class: int | None = None, folder: str | None = None) -> Path:
    """Writes the dataset of that registry name below `root`.

    Args:
        name: one of `COUNTS`.
        root: what --root will name.
        per_class: images a class and part; None: the true numbers (ImageNet: always give one).
        folder: instead of upstream's folder.

    Returns:
        The dataset's folder.
    """
    tree = Tree(root / (folder or KEYS[name][0]), name, per_class)
    tree.folder.mkdir(parents=True, exist_ok=True)
    MAKERS[name](tree)
    return tree.folder


# --- one function a dataset -----------------------------------------------------------------------


def _caltech101(tree: Tree) -> None:
    tree.split_images("101_ObjectCategories")
    for label, ignored in enumerate(("BACKGROUND_Google", "Faces_easy")):
        folder = tree.folder / "101_ObjectCategories" / ignored
        tree.images(folder, ["image_0001.jpg", "image_0002.jpg"], label)


def _dtd(tree: Tree) -> None:
    tree.split_images("images")
    (tree.folder / "images" / "waffled" / ".directory").touch()  # as in the archive


def _eurosat(tree: Tree) -> None:
    tree.split_images("2750")


def _oxford_pets(tree: Tree) -> None:
    lists = tree.split_images("images")
    parts = {"trainval": lists["train"] + lists["val"], "test": lists["test"]}
    for part, rows in parts.items():
        lines = [f"{path.removesuffix('.jpg')} {label + 1} 1 1" for path, label, _ in sorted(rows)]
        tree.text(f"annotations/{part}.txt", lines)


def _oxford_flowers(tree: Tree) -> None:
    rows = [row for rows in tree.split_images("jpg").values() for row in rows]
    labels = {path: label + 1 for path, label, _ in rows}
    savemat(tree.folder / "imagelabels.mat", {"labels": [labels[path] for path in sorted(labels)]})
    names = {str(label): name for label, name in enumerate(classnames(tree.name), start=1)}
    tree.text("cat_to_name.json", [json.dumps(names)])


def _stanford_cars(tree: Tree) -> None:
    lists = tree.split_images("")
    (tree.folder / "devkit").mkdir()
    names = [name.partition(" ") for name in classnames(tree.name)]  # the year stands first
    _save_strings(
        tree.folder / "devkit/cars_meta.mat", [f"{model} {year}" for year, _, model in names]
    )
    parts = {
        "devkit/cars_train_annos.mat": lists["train"] + lists["val"],
        "cars_test_annos_withlabels.mat": lists["test"],
    }
    fields = [(f"bbox_{corner}", object) for corner in ("x1", "y1", "x2", "y2")]
    for path, rows in parts.items():
        annotations = np.zeros(
            (1, len(rows)), dtype=[*fields, ("class", object), ("fname", object)]
        )
        for i, (file, label, _) in enumerate(sorted(rows)):
            annotations[0, i] = (1, 1, 40, 36, label + 1, Path(file).name)
        savemat(tree.folder / path, {"annotations": annotations})


def _save_strings(path: Path, values: list[str]) -> None:
    cells = np.empty((1, len(values)), dtype=object)
    cells[0] = values
    savemat(path, {"class_names": cells})


def _food101(tree: Tree) -> None:
    per_class = 10 * tree.per_class if tree.per_class else 1000
    for label, name in enumerate(classnames(tree.name)):
        files = [f"{100 * label + i}.jpg" for i in range(per_class)]
        tree.images(tree.folder / "images" / name, files, label)
    tree.text("meta/classes.txt", classnames(tree.name))


def _fgvc_aircraft(tree: Tree) -> None:
    names = classnames(tree.name)
    tree.text("variants.txt", names)
    number = 34309
    for index, part in enumerate(("train", "val", "test"), start=1):
        lines = []
        for label, count in enumerate(tree.number(index, len(names))):
            numbers = [f"{number + i:07d}" for i in range(count)]
            number += count
            tree.images(tree.folder / "images", [f"{n}.jpg" for n in numbers], label)
            lines += [f"{n} {names[label]}" for n in numbers]
        tree.text(f"images_variant_{part}.txt", lines)


def _sun397(tree: Tree) -> None:
    folders = []
    for name in classnames(tree.name):
        kind, _, scene = name.rpartition(" ")
        folders.append("/".join(filter(None, ("", scene[0], scene, kind))) or "/")
    folders = [f"/{folder.lstrip('/')}" for folder in folders]
    tree.text("ClassName.txt", folders)
    n = tree.per_class or 50
    lines: dict[str, list[str]] = {"Training_01.txt": [], "Testing_01.txt": []}
    for label, folder in enumerate(folders):
        files = [f"sun_{label:03d}{i:03d}.jpg" for i in range(6 * n if tree.per_class else 2 * n)]
        tree.images(tree.folder / "SUN397" / folder[1:], files, label)
        lines["Training_01.txt"] += [f"{folder}/{file}" for file in files[:-n]]
        lines["Testing_01.txt"] += [f"{folder}/{file}" for file in files[-n:]]
    for path, content in lines.items():
        tree.text(path, content)


def _ucf101(tree: Tree) -> None:
    lists = tree.split_images("UCF-101-midframes")
    actions = [name.replace("_", "") for name in classnames(tree.name)]
    rows = [f"{label} {action}\r" for label, action in enumerate(actions, start=1)]
    tree.text("ucfTrainTestlist/classInd.txt", rows)
    for part, used in (("train", ("train", "val")), ("test", ("test",))):
        videos = [
            (f"{actions[label]}/{Path(path).stem}.avi", label + 1)
            for source in used
            for path, label, _ in lists[source]
        ]
        lines = [f"{v} {n}" if part == "train" else v for v, n in sorted(videos)]
        tree.text(f"ucfTrainTestlist/{part}list01.txt", lines)


def _imagenet(tree: Tree) -> None:
    for part in (1, 3):
        folder = tree.folder / "images" / ("train" if part == 1 else "val")
        _wnid_folders(tree, folder, part)


def _imagenetv2(tree: Tree) -> None:
    folder = tree.folder / "imagenetv2-matched-frequency-format-val"
    for label, count in enumerate(tree.number(3, 1000)):
        files = [f"{label:04x}{i:02x}.jpeg" for i in range(count)]
        tree.images(folder / str(label), files, label)


def _imagenet_sketch(tree: Tree) -> None:
    _wnid_folders(tree, tree.folder / "images", 3)


def _imagenet_a(tree: Tree) -> None:
    _wnid_folders(tree, tree.folder / "imagenet-a", 3)
    tree.text("imagenet-a/README.txt", ["ImageNet-A"])


def _imagenet_r(tree: Tree) -> None:
    _wnid_folders(tree, tree.folder / "imagenet-r", 3)
    tree.text("imagenet-r/README.txt", ["ImageNet-R"])


def _wnid_folders(tree: Tree, folder: Path, part: int) -> None:
    folders = wnids(tree.name)
    for label, (wnid, count) in enumerate(zip(folders, tree.number(part, len(folders)))):
        tree.images(folder / wnid, [f"{wnid}_{i}.JPEG" for i in range(count)], label)


MAKERS: dict[str, Callable[[Tree], None]] = {
    "ImageNet": _imagenet,
    "Caltech101": _caltech101,
    "OxfordPets": _oxford_pets,
    "StanfordCars": _stanford_cars,
    "OxfordFlowers": _oxford_flowers,
    "Food101": _food101,
    "FGVCAircraft": _fgvc_aircraft,
    "SUN397": _sun397,
    "DescribableTextures": _dtd,
    "EuroSAT": _eurosat,
    "UCF101": _ucf101,
    "ImageNetV2": _imagenetv2,
    "ImageNetSketch": _imagenet_sketch,
    "ImageNetA": _imagenet_a,
    "ImageNetR": _imagenet_r,
}
