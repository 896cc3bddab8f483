"""Own images that show the same give the same accuracy, in any mode, order and layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dassl.utils.errors import OutputFolderError
from tests.runs import run

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PER_CLASS = 8
pytestmark = pytest.mark.slow


def digits() -> list[tuple[int, int, np.ndarray]]:
    """Returns (class, number in the class, 32 x 32 grey levels)."""
    data, found = load_digits(), []
    for label in range(10):
        for i, pixels in enumerate(data.images[data.target == label][:PER_CLASS]):
            grey = np.rint(pixels * (255 / 16)).astype(np.uint8)
            shown = Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC)
            found.append((label, i, np.asarray(shown)))
    return found


def plain(grey: np.ndarray, path: Path) -> None:
    Image.fromarray(grey).save(path.with_suffix(".png"))


def deep(grey: np.ndarray, path: Path) -> None:
    Image.fromarray(grey.astype(np.uint16) * 257).save(path.with_suffix(".png"))


def floating(grey: np.ndarray, path: Path) -> None:
    Image.fromarray((grey / 255).astype(np.float32)).save(path.with_suffix(".tif"))


def big_endian(grey: np.ndarray, path: Path) -> None:
    pixels = (grey.astype(">u2") * 257).tobytes()
    Image.frombytes("I;16B", (32, 32), pixels).save(path.with_suffix(".tif"))


def turned(grey: np.ndarray, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(grey))).save(path.with_suffix(".png"), exif=exif)


def drawn_in_alpha(grey: np.ndarray, path: Path) -> None:
    image = Image.new("RGBA", (32, 32), "white")  # on black
    image.putalpha(Image.fromarray(grey))
    image.save(path.with_suffix(".png"))


def without_ending(grey: np.ndarray, path: Path) -> None:
    Image.fromarray(grey).save(path, format="PNG")


def tree(root: Path, write, folder=str) -> Path:
    for label, i, grey in digits():
        part = "train" if i < PER_CLASS // 2 else "test"
        place = root / part / folder(label)
        place.mkdir(parents=True, exist_ok=True)
        write(grey, place / f"{i}")
    return root


def zero_shot(root: Path, output: Path, *opts: str) -> tuple[float, list]:
    """Returns the accuracy, and (class name, images, correct) of each class, sorted."""
    accuracy = run(
        *(root, output, *opts),
        trainer="ZeroshotCLIP",
        recipe="CoOp/tiny",
        dataset="folder",
        subsample_classes="all",
    )
    record = json.loads((output / "results.jsonl").read_text().splitlines()[-1])
    rows = sorted((row["name"], row["total"], row["correct"]) for row in record["per_class"])
    return accuracy, rows


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    found = zero_shot(tree(folder / "data", plain, WORDS.__getitem__), folder / "out")
    assert found[0] > 30  # of ten classes
    return found


@pytest.mark.parametrize(
    "write", [deep, floating, big_endian, turned, drawn_in_alpha, without_ending]
)
def test_in_any_mode(tmp_path, expected, write):
    opts = ("DATASET.BACKGROUND", "black")
    root = tree(tmp_path / "data", write, WORDS.__getitem__)
    assert zero_shot(root, tmp_path / "out", *opts) == expected


@pytest.mark.parametrize("folder", ["{}", "{:02d}", "{}.0"])
@pytest.mark.parametrize("names", ["list", "file", "labels"])
def test_with_names_for_numbers(tmp_path, expected, folder, names):
    root = tree(tmp_path / "data", plain, folder.format)
    (root / "names.txt").write_text("\n".join(WORDS))
    (root / "labels.json").write_text(json.dumps({name: i for i, name in enumerate(WORDS)}))
    setting = {"list": ",".join(WORDS), "file": "names.txt", "labels": "labels.json"}[names]
    assert zero_shot(root, tmp_path / "out", "DATASET.CLASSNAMES", setting) == expected


def test_from_a_csv(tmp_path, expected):
    root = tree(tmp_path / "data", plain)
    rows = [
        f"{path.relative_to(root)};{float(path.parent.name)};{path.parts[-3].title()}ing"
        for path in sorted(root.rglob("*.png"))
    ]
    (root / "a.csv").write_text("\n".join(["File;Class;Set", *rows]), encoding="utf-16")
    opts = ("DATASET.CSV", "a.csv", "DATASET.CLASSNAMES", ",".join(WORDS))
    assert zero_shot(root, tmp_path / "out", *opts) == expected


def test_stored_features_of_another_background_are_not_taken(tmp_path, expected):
    """The same files, read in another way; features of the first way lie in the store."""
    root = tree(tmp_path / "data", drawn_in_alpha, WORDS.__getitem__)
    white = zero_shot(root, tmp_path / "white")
    black = zero_shot(root, tmp_path / "black", "DATASET.BACKGROUND", "black")
    assert black == expected and white != expected


def test_the_picture_of_errors_shows_what_the_model_saw(tmp_path):
    root = tree(tmp_path / "data", drawn_in_alpha, WORDS.__getitem__)
    opts = ("DATASET.BACKGROUND", "#00ff00", "TEST.ERROR_ANALYSIS", "True")
    zero_shot(root, tmp_path / "out", *opts)
    with Image.open(tmp_path / "out" / "confused.png") as image:
        assert (0, 255, 0) in {colour for _, colour in image.convert("RGB").getcolors(2**24)}


def test_a_run_does_not_write_among_the_classes(tmp_path):
    """Its own folders would be classes without images, and advice to remove them would lose it."""
    own = tree(tmp_path / "own", plain, WORDS.__getitem__)
    with pytest.raises(OutputFolderError, match="holds the images, a class a folder"):
        zero_shot(own, own)
    assert sorted(path.name for path in own.iterdir()) == ["test", "train"]
