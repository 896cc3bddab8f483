"""`python -m datasets verify Folder`: images of one's own."""

from __future__ import annotations

import shutil

import pytest

from tests.datasets.helpers_folder import csv_rows, draw, make_root, write_csv
from tests.datasets.manage.helpers import check, overwrite


@pytest.fixture
def own(tmp_path):
    for place, part in enumerate(("train", "test")):
        for number, name in enumerate(("crow", "jay")):
            for i in range(5):
                draw(tmp_path / "birds" / part / name / f"{i}.jpg", 100 * place + 10 * number + i)
    return tmp_path / "birds"


@pytest.mark.parametrize("name", ["Folder", "folder"])
def test_all_is_well(own, capsys, name):
    before = sorted(own.rglob("*"))
    code, out = check(capsys, own, name)
    assert code == 0 and "all 20 decoded" in out and "Folder: OK" in out
    assert "8 train, 2 val, 10 test" in out and "2, from crow to jay" in out
    assert sorted(own.rglob("*")) == before


def test_an_image_with_a_damaged_middle(own, capsys):
    path = own / "test" / "jay" / "3.jpg"
    draw(path.with_suffix(".png"), 400)
    content = path.with_suffix(".png").read_bytes()
    middle = len(content) // 2
    overwrite(path, content[:middle] + bytes(20) + content[middle + 20 :])
    path.with_suffix(".png").unlink()
    code, out = check(capsys, own, "Folder")
    assert code == 1 and "jay/3.jpg cannot be read" in out


@pytest.mark.parametrize(
    ("source", "target"),
    [("train/jay/0.jpg", "test/jay/x.jpg"), ("test/jay/0.jpg", "test/crow/x.jpg")],
)
def test_byte_copies(own, capsys, source, target):
    shutil.copy(own / source, own / target)
    code, out = check(capsys, own, "Folder")
    assert code == 1 and "WRONG: 1 image is there as copies" in out and target in out


def test_what_a_run_would_refuse(own, capsys):
    (own / "test" / "owl").mkdir()
    code, out = check(capsys, own, "Folder")
    assert code == 1 and "WRONG: class folder" in out
    code, out = check(capsys, own / "gone", "Folder")
    assert code == 2 and "there is no folder" in out


def test_settings(tmp_path, capsys):
    root = make_root(tmp_path)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        draw(path, number)
    write_csv(root / "birds.csv", csv_rows())
    code, out = check(capsys, root, "Folder", "--set", "DATASET.CSV", "birds.csv")
    assert code == 0 and "4 train, 2 val, 2 test" in out
    code, out = check(capsys, root, "Folder", "--set", "DATASET.CVS", "birds.csv")
    assert code == 2 and "CVS" in out


@pytest.mark.slow
def test_a_benchmark_with_copies_says_so(good, capsys):
    """The made-up trees hold the same picture many times."""
    code, out = check(capsys, good, "DescribableTextures", "--full", "--seeds", "1")
    assert code == 0 and "are there as copies in two parts or classes" in out
