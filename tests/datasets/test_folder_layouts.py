"""What is a part, a class, an image: layouts as people and their systems make them."""

from __future__ import annotations

import os
import shutil
import time
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from dassl.utils import DataError
from datasets.readers.image_checks import ImageChecks
from datasets.readers.pictures import PictureReader
from tests.datasets.helpers_folder import (
    BIRDS,
    draw,
    load,
    make_classes,
    make_split,
    paths,
    sizes,
    write_csv,
)


def seeded_split(root: Path, *parts: str, n: int = 4) -> Path:
    """Parts whose images all differ."""
    for place, part in enumerate(parts):
        for number, name in enumerate(BIRDS):
            for i in range(n):
                draw(root / part / name / f"{i}.jpg", 1000 * place + 100 * number + i)
    return root


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "Validation", "Testing"),
        ("TRAIN", "VALID", "TEST"),
        ("training-set", "dev", "test set"),
        ("trainset", "Eval", "Test_Set"),
    ],
)
def test_parts_by_any_of_their_names(tmp_path, train, val, test):
    made = load(seeded_split(tmp_path, train, val, test))
    assert sizes(made) == (16, 16, 16) and made.classnames == list(BIRDS)


@pytest.mark.parametrize(
    "names", [("train", "Train", "test"), ("train", "val", "valid", "test"), ("train", "training")]
)
def test_two_folders_for_one_part(tmp_path, names):
    with pytest.raises(DataError, match=r"holds both .*, and both mean (train|val)"):
        load(seeded_split(tmp_path, *names))


@pytest.mark.parametrize("above", ["dataset", "my data/release 1", "a/b/c"])
def test_one_level_more(tmp_path, above, capsys):
    seeded_split(tmp_path / above, "train", "test")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("hello")
    assert sizes(load(tmp_path))[2] == 16
    assert f"images are read from {tmp_path / above}" in capsys.readouterr().out


def test_all_class_folders_within_one_folder(tmp_path):
    assert load(make_classes(tmp_path / "images", 4)).classnames == list(BIRDS)


def test_a_level_more_within_each_part(tmp_path):
    seeded_split(tmp_path, "train/images", "test/images")
    assert load(tmp_path).classnames == list(BIRDS)
    (tmp_path / "test" / "images").rename(tmp_path / "test" / "pictures")
    with pytest.raises(DataError, match="put all parts in the same order"):
        load(tmp_path)


def test_a_part_within_a_folder_for_the_part(tmp_path):
    """As archives unpack that hold a folder called as they are."""
    make_classes(tmp_path / "training_set" / "training_set", 5)
    make_classes(tmp_path / "test_set" / "test_set", 3)
    assert sizes(load(tmp_path)) == (16, 4, 12)
    (tmp_path / "test_set" / "test_set").rename(tmp_path / "test_set" / "other")
    with pytest.raises(DataError, match=r"lie in .*training_set/training_set, but there is no"):
        load(tmp_path)


def test_one_class_in_two_folders(tmp_path, capsys):
    """A name with an accent that is spelled in two ways."""
    names = [unicodedata.normalize(form, "Häher") for form in ("NFC", "NFD")]
    dataset = load(make_classes(tmp_path, 4, (*names, "crow")))
    assert dataset.classnames == ["Häher", "crow"] and sizes(dataset) == (6, 3, 3)
    assert r"one class in two spellings: 'Ha\u0308her' and 'H\xe4her'" in capsys.readouterr().out


def test_a_disk_s_spelling_of_accents_moves_nothing(tmp_path):
    """Classes, split, digest and sample are those of the same tree on another system."""
    found = []
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        for i, name in enumerate(("cafz", "café", "tea", "Ärger")):
            for j in range(12):
                path = root / name / f"{'é' if j % 2 else 'f'}{j}.png"
                draw(Path(unicodedata.normalize(form, str(path))), 20 * i + j)
        dataset = load(root)
        paths = [[item.impath for item in part] for part in (dataset.train_x, dataset.test)]
        names = [dataset.classnames, *(dataset.relative_paths(dataset.test), paths)]
        shown = unicodedata.normalize("NFC", repr(names)).replace(str(root), "")
        found.append((dataset.split_digest, shown))
    assert found[0] == found[1]


def test_parts_that_hold_images_but_no_classes(tmp_path):
    for name in ("train", "test"):
        for i in range(4):
            draw(tmp_path / name / f"{i}.jpg", i)
    with pytest.raises(DataError, match=r"test, train with images directly in them.*DATASET.CSV"):
        load(tmp_path)


def test_one_part_has_classes_and_the_other_has_not(tmp_path):
    seeded_split(tmp_path, "train")
    draw(tmp_path / "test" / "a.jpg")
    with pytest.raises(DataError, match=r"no test folder \(test holds no class folders\)"):
        load(tmp_path)


@pytest.mark.parametrize("parts", [("train", "test"), ("train",), ("Training", "dev")])
def test_parts_within_classes(tmp_path, parts):
    for number, name in enumerate(BIRDS):
        for part in parts:
            draw(tmp_path / name / part / "a.jpg", number)
    draw(tmp_path / "crow" / "test" / "b.jpg")
    with pytest.raises(DataError, match="parts lie within classes"):
        load(tmp_path)


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("learn", "exam"), ("site A", "site B")])
def test_either_level_may_be_the_classes(tmp_path, names):
    with pytest.raises(DataError, match="either level may be the classes"):
        load(seeded_split(tmp_path, *names))


def test_folders_below_a_class_are_its_images(tmp_path):
    make_classes(tmp_path / "crow", 4, ("front", "back"))
    make_classes(tmp_path / "jay", 4, ("left",))
    assert load(tmp_path).classnames == ["crow", "jay"]


def test_images_beside_class_folders_are_said(tmp_path, capsys):
    seeded_split(tmp_path, "train", "test")
    draw(tmp_path / "train" / "overview.png")
    draw(tmp_path / "preview.png")
    assert sizes(load(tmp_path))[2] == 16
    assert "1 image outside of class folders (train/overview.png)" in capsys.readouterr().out


def test_a_folder_beside_the_parts_is_said(tmp_path, capsys):
    seeded_split(tmp_path, "train", "test", "unlabelled")
    load(tmp_path)
    assert "1 folder with images beside train and test (unlabelled)" in capsys.readouterr().out


def test_classes_without_test_images_are_said(tmp_path, capsys):
    seeded_split(tmp_path, "train", "test")
    shutil.rmtree(tmp_path / "test" / "jay")
    load(tmp_path)
    assert "test has no images of 1 of the 4 classes: jay" in capsys.readouterr().out


def test_a_class_in_another_case_is_named(tmp_path):
    seeded_split(tmp_path, "train", "test")
    (tmp_path / "test" / "jay").rename(tmp_path / "test" / "Jay")
    with pytest.raises(DataError, match=r"\(1\): Jay\..*Did you mean 'jay'\?"):
        load(tmp_path)


# --- folders that are no classes ------------------------------------------------------------------


SYSTEM = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found", ".ipynb_checkpoints")


@pytest.mark.parametrize("name", [*SYSTEM, "System Volume Information", ".unpacking-1", ".git"])
def test_system_folders(tmp_path, name, capsys):
    make_classes(tmp_path, 4)
    for place in (tmp_path, tmp_path / "crow"):
        draw(place / name / "a.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    assert sizes(load(tmp_path)) == (8, 4, 4)
    if not name.startswith("."):
        assert f"system folders ({name}, crow/{name})" in capsys.readouterr().out


@pytest.mark.parametrize("deep", ["output", "output/coop/seed1"])
@pytest.mark.parametrize("file", ["results.jsonl", "log.txt"])
def test_our_own_output(tmp_path, deep, file, capsys):
    make_classes(tmp_path, 4)
    draw(tmp_path / deep / "confused.png")
    (tmp_path / deep / file).write_text("** Arguments **\n{}\n")
    assert load(tmp_path).classnames == list(BIRDS)
    assert "folder of runs (output)" in capsys.readouterr().out


def test_a_class_with_a_log_of_its_own_is_a_class(tmp_path):
    make_classes(tmp_path, 4)
    (tmp_path / "crow" / "log.txt").write_text("downloaded 4 images")
    assert load(tmp_path).classnames == list(BIRDS)


# --- images ---------------------------------------------------------------------------------------


def test_images_by_content(tmp_path):
    """Without ending, with a wrong or an odd one."""
    make_classes(tmp_path, 3)
    for i, name in enumerate(("plain", "a.jfif", "b.JPG_large", "c.dat", "d.txt", "e.png")):
        draw(tmp_path / f"{i}.jpg", 50 + i)
        (tmp_path / f"{i}.jpg").rename(tmp_path / "crow" / name)
    made = load(tmp_path)
    everything = paths(made.train_x + made.val + made.test, tmp_path)
    assert len([p for p in everything if p.startswith("crow/")]) == 9


def test_what_is_no_image_is_counted_and_said(tmp_path, capsys):
    make_classes(tmp_path, 3)
    (tmp_path / "crow" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0 thumbs")
    (tmp_path / "crow" / "notes.txt").write_text("hello")
    (tmp_path / "jay" / "clip.mp4").write_bytes(bytes(1000))
    (tmp_path / "crow" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "jay" / "pipe.jpg")
    made = load(tmp_path)
    assert sizes(made) == (4, 4, 4)
    out = capsys.readouterr().out
    for text in (
        "1 broken link (crow/gone.jpg)",
        "1 system file (crow/Thumbs.db)",
        "2 files that are no images (crow/notes.txt, jay/clip.mp4)",
        "1 pipe or device (jay/pipe.jpg)",
    ):
        assert text in out
    assert made.provenance["passed_over"]["broken links"] == 1


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\xff\xd8\xff\xe0 cut"])
def test_a_file_called_image_that_is_none(tmp_path, content):
    make_classes(tmp_path, 4)
    (tmp_path / "crow" / "00.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"crow/00\.jpg cannot be read.*take it out"):
        load(tmp_path)


def test_photographs_that_pillow_does_not_read(tmp_path):
    make_classes(tmp_path, 4)
    (tmp_path / "crow" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"IMG_1\.HEIC cannot be read"):
        load(tmp_path)


def test_linked_files_and_folders(tmp_path):
    store = make_classes(tmp_path / "store", 4)
    for number, name in enumerate(BIRDS):
        for i in range(4):
            draw(store / name / f"{i:02d}.jpg", 100 * number + i)
    root = tmp_path / "root"
    (root / "crow").mkdir(parents=True)
    (root / "crow" / "more").symlink_to(store / "crow")
    (root / "jay").symlink_to(store / "jay")
    (root / "wren").mkdir()
    for file in (store / "wren").iterdir():
        (root / "wren" / file.name).symlink_to(file)
    assert sizes(load(root)) == (6, 3, 3)


def test_links_that_lead_back(tmp_path):
    make_classes(tmp_path, 4)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "above").symlink_to(tmp_path.parent)
    (tmp_path / "crow" / "loop").symlink_to(tmp_path / "crow")
    (tmp_path / "crow" / "deep").mkdir()
    (tmp_path / "crow" / "deep" / "back").symlink_to(tmp_path / "crow")
    assert sizes(load(tmp_path)) == (8, 4, 4)


def test_folders_that_link_each_other_do_not_multiply(tmp_path):
    root = make_classes(tmp_path, 3, [f"c{i}" for i in range(9)])
    for one in root.iterdir():
        for other in root.iterdir():
            if one != other:
                (one / f"to {other.name}").symlink_to(other)
    start = time.monotonic()
    with pytest.raises(DataError, match="in two parts or under two labels"):
        load(root)
    assert time.monotonic() - start < 20


def test_a_second_link_within_a_class_counts_once(tmp_path, capsys):
    make_classes(tmp_path, 4)
    (tmp_path / "crow" / "again.jpg").symlink_to(tmp_path / "crow" / "00.jpg")
    os.link(tmp_path / "crow" / "01.jpg", tmp_path / "crow" / "hard.jpg")
    assert sizes(load(tmp_path)) == (8, 4, 4)
    assert "2 second links to an image" in capsys.readouterr().out


def test_odd_names(tmp_path):
    names = ('it\'s [a] "bird"', "50% off*", " lead", "Zaunkönig {0}", "-dash", "a,b;c", "#1")
    made = load(make_classes(tmp_path / "my [data] 'x' & more", 4, names))
    assert made.classnames == [name.strip() for name in sorted(names)]
    assert len(made.test) == len(names)


def test_a_name_that_is_no_text(tmp_path):
    make_classes(tmp_path, 4)
    name = os.fsencode(tmp_path) + b"/crow/Zaunk\xf6nig.jpg"
    shutil.copy(tmp_path / "crow" / "00.jpg", name)
    with pytest.raises(DataError, match=r"Zaunk\\udcf6nig.jpg' is not valid UTF-8; rename it"):
        load(tmp_path)


def test_ten_thousand_headers_are_quick(tmp_path):
    draw(tmp_path / "a.jpg")
    start = time.monotonic()
    problems = ImageChecks(PictureReader().check).problems([str(tmp_path / "a.jpg")] * 10_000)
    assert problems == [""] * 10_000
    assert time.monotonic() - start < 15


# --- training images in the test set --------------------------------------------------------------


def link_folder(root: Path) -> None:
    shutil.rmtree(root / "test")
    (root / "test").symlink_to("train")


def link_class(root: Path) -> None:
    shutil.rmtree(root / "test" / "jay")
    (root / "test" / "jay").symlink_to(root / "train" / "jay")


def link_file(root: Path) -> None:
    (root / "test" / "jay" / "0.jpg").unlink()
    (root / "test" / "jay" / "0.jpg").symlink_to(root / "train" / "jay" / "1.jpg")


def hard_link(root: Path) -> None:
    os.link(root / "train" / "jay" / "1.jpg", root / "test" / "jay" / "9.jpg")


def two_labels(root: Path) -> None:
    (root / "train" / "crow" / "jay.jpg").symlink_to(root / "train" / "jay" / "1.jpg")


@pytest.mark.parametrize("spoil", [link_folder, link_class, link_file, hard_link, two_labels])
def test_one_file_in_two_places(tmp_path, spoil):
    root = seeded_split(tmp_path, "train", "test")
    spoil(root)
    with pytest.raises(DataError, match=r"in two parts or under two labels; these are one file"):
        load(root)


@pytest.mark.parametrize(
    "second", ["./{}", "sub/../{}", "{full}", "link/{}", ".\\{}"], ids=lambda text: text[:5]
)
def test_a_csv_that_spells_one_path_in_two_ways(tmp_path, second):
    root = make_classes(tmp_path / "birds", 4, ("crow", "jay"))
    (root / "sub").mkdir()
    (root / "link").symlink_to(root)
    lines = [f"{c}/{i:02d}.jpg,{c},{'test' if i else 'train'}" for c in BIRDS[:1] for i in range(4)]
    lines += [f"jay/{i:02d}.jpg,jay,{'test' if i else 'train'}" for i in range(4)]
    again = second.format("crow/01.jpg", full=root / "crow/01.jpg")
    file = write_csv(root / "a.csv", [*lines, f"{again},crow,train"])
    with pytest.raises(DataError, match=r"more than once \(1\): crow/01.jpg \(crow\) and "):
        load(root, CSV=str(file))


def test_byte_copies_are_said(tmp_path, capsys):
    root = seeded_split(tmp_path, "train", "test")
    assert load(root).provenance["copies"] == 0
    shutil.copy(root / "train" / "jay" / "0.jpg", root / "test" / "jay" / "copy.jpg")
    shutil.copy(root / "train" / "crow" / "0.jpg", root / "train" / "wren" / "copy.jpg")
    shutil.copy(root / "train" / "crow" / "1.jpg", root / "train" / "crow" / "copy.jpg")
    capsys.readouterr()
    made = load(root)
    assert made.provenance["copies"] == 2
    assert "2 images are there as copies in two parts or classes" in capsys.readouterr().out


def test_equal_sizes_and_equal_ends_are_no_copies(tmp_path):
    for part in ("train", "test"):
        for number, name in enumerate(BIRDS[:2]):
            for i in range(3):
                image = Image.new("RGB", (80, 80))
                image.putpixel((40, 40), (number, i, len(part)))
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                image.save(tmp_path / part / name / f"{i}.bmp")
    assert load(tmp_path).provenance["copies"] == 0


def test_kept_parts_are_not_mixed_up_with_make_split(tmp_path):
    """Images alike in several classes, as `make_split` draws them, are refused by verify alone."""
    assert sizes(load(make_split(tmp_path, train=5, test=3)))[2] == 12
