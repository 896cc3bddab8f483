"""CSV files of own images: as spreadsheets, programs and people write them."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.utils import DataError, MissingFileError, UserError
from datasets.readers.image_checks import ImageChecks
from datasets.readers.own_csv import read_csv
from datasets.readers.pictures import PictureReader
from tests.datasets.helpers_folder import csv_rows, draw, load, make_root, paths, sizes, write_csv

checks = ImageChecks(PictureReader().check)


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


def text(delimiter: str = ",", header: str = "path,label,split") -> str:
    return "\n".join([header, *csv_rows()]).replace(",", delimiter) + "\n"


# --- form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_delimiters_line_ends_and_encodings(root, delimiter, line_end, encoding):
    (root / "a.csv").write_bytes(text(delimiter).replace("\n", line_end).encode(encoding))
    assert sizes(load(root, CSV="a.csv")) == (4, 2, 2)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk"])
def test_encodings_that_the_user_names(root, encoding):
    names = {"gbk": "乌鸦"}.get(encoding, "Zaunkönig")
    for i in range(4):
        draw(root / names / f"{i}.jpg", 50 + i)
    rows = [*csv_rows(), *(f"{names}/{i}.jpg,{names},{p}" for i, p in enumerate(("train", "test")))]
    (root / "a.csv").write_bytes("\n".join(["path,label,split", *rows]).encode(encoding))
    with pytest.raises(DataError, match=r"DATASET.ENCODING latin-1"):
        load(root, CSV="a.csv")
    assert names in load(root, CSV="a.csv", ENCODING=encoding).classnames


@pytest.mark.parametrize(
    "header",
    [
        "file,class,subset",
        "Filename,Category,Set",
        '"image_path","target","partition"',
        " IMAGE , Label , SPLIT ",
        "filepath,classname,split",
    ],
)
def test_headers(root, header):
    (root / "a.csv").write_text(text(header=header))
    assert sizes(load(root, CSV="a.csv")) == (4, 2, 2)


def test_columns_that_are_not_read_are_said(root, capsys):
    rows = [f"{i},{row},2.5" for i, row in enumerate(csv_rows())]
    load(root, CSV=str(write_csv(root / "a.csv", rows, ",path,label,split,weight")))
    assert "that are not read: (no name), weight" in capsys.readouterr().out


def test_two_columns_for_one_thing(root):
    rows = [f"{row.split(',')[0]},0,{row.split(',')[1]}" for row in csv_rows()]
    file = write_csv(root / "a.csv", rows, "path,class,category")
    with pytest.raises(DataError, match="several columns for the label: class, category"):
        load(root, CSV=str(file))
    file = write_csv(root / "a.csv", rows, "path,class,label")
    assert load(root, CSV=str(file)).classnames == ["crow", "jay"]


@pytest.mark.parametrize("part", ["Training,TRAIN,dev,Testing", "train,train,Validation,test set"])
def test_names_of_parts(root, part):
    names = iter(part.split(",") * 2)
    rows = [f"{row.rpartition(',')[0]},{next(names)}" for row in csv_rows()]
    assert sizes(load(root, CSV=str(write_csv(root / "a.csv", rows)))) == (4, 2, 2)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda root, path: f"./{path}",
        lambda root, path: path.replace("/", "\\"),
        lambda root, path: f".\\{path}",
        lambda root, path: f"{root}/{path}",
        lambda root, path: f"  {path} ",
        lambda root, path: f'"{path}"',
    ],
)
def test_spellings_of_paths(root, rewrite):
    rows = [
        f"{rewrite(root, path)},{label},{part}"
        for path, label, part in (row.split(",") for row in csv_rows())
    ]
    made = load(root, CSV=str(write_csv(root / "a.csv", rows)))
    assert paths(made.test, root) == ["crow/03.jpg", "jay/03.jpg"]


@pytest.mark.parametrize("name", ["~1.jpg", 'say "a".jpg', "a, b.jpg", "[1] 50%.jpg", "a;b.jpg"])
def test_odd_paths(root, name):
    draw(root / name, 99)
    quoted = name.replace('"', '""')
    file = write_csv(root / "a.csv", [*csv_rows(), f'"{quoted}",crow,test'])
    assert name in paths(load(root, CSV=str(file)).test, root)


@pytest.mark.parametrize("write", ["{:02d}", "{}.0", "{}e0", "+{}", " {} ", '"{}"'])
def test_labels_in_any_spelling_of_numbers(root, write):
    rows = []
    for n in range(12):
        for i, part in enumerate(("train", "test")):
            draw(root / f"{n}-{i}.jpg", 100 * n + i)
            rows.append(f"{n}-{i}.jpg,{write.format(n)},{part}")
    file = write_csv(root / "a.csv", rows[::-1])
    made = load(root, CSV=str(file), CLASSNAMES=",".join(f"name {n}" for n in range(12)))
    for item in made.train_x + made.test:
        assert item.classname == f"name {item.impath.rpartition('/')[2].partition('-')[0]}"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a, b.jpg,crow,train", r"line 2 has 4 values, but the first line has 3; put quotes"),
        ('"crow/00.jpg,crow,train', r"is no CSV \(unexpected end of data\)"),
        ("crow/00.jpg,crow,train\0", "is no text file"),
        ("a\u0000.jpg,crow,train", "is no text file"),
        ("notes.txt,crow,train", r"notes\.txt cannot be read.*take the line out"),
        ("empty.jpg,crow,train", r"empty\.jpg cannot be read"),
        ("pipe.jpg,crow,train", "1 of the 8 images"),
        (f"{'x' * 5000}.jpg,crow,train", "1 of the 8 images"),
        (f"{'x' * 140_000}.jpg,crow,train", "field larger than field limit"),
        ("~nobody/00.jpg,crow,train", "1 of the 8 images"),
        ("C:\\birds\\00.jpg,crow,train", "1 of the 8 images"),
    ],
)
def test_lines_that_are_wrong(root, line, message):
    (root / "notes.txt").write_text("hello")
    (root / "empty.jpg").write_bytes(b"")
    os.mkfifo(root / "pipe.jpg")
    with pytest.raises((DataError, MissingFileError), match=message):
        load(root, CSV=str(write_csv(root / "a.csv", [line, *csv_rows()[1:]])))


@pytest.mark.parametrize(
    "above", ["sep=,\n", "SEP=,\r\n", "\n\n", ",,\n", "\ufeffsep=,\n", "sep=,\n\n"]
)
def test_lines_above_the_header(root, above):
    (root / "a.csv").write_text(above + text(","), encoding="utf-8", newline="")
    assert sizes(load(root, CSV="a.csv")) == (4, 2, 2)
    bad = "crow/00.jpg,crow,nowhere\n"
    (root / "a.csv").write_text(above + "path,label,split\n" + bad, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=f"line {above.count(chr(10)) + 2}: split is 'nowhere'"):
        load(root, CSV="a.csv")


def test_blanks_in_front_of_quotes(root):
    rows = [", ".join(f'"{value}"' for value in row.split(",")) for row in csv_rows()]
    write_csv(root / "a.csv", rows, "path, label, split")
    assert sizes(load(root, CSV="a.csv")) == (4, 2, 2)


@pytest.mark.parametrize("start", [b"PK\3\4", b"\xd0\xcf\x11\xe0\xa1", b"\x1f\x8b\x08"])
def test_spreadsheets_and_archives(root, start):
    (root / "birds.xlsx").write_bytes(start + bytes(range(256)))
    for keys in ({"CSV": "birds.xlsx"}, {"CSV": "birds.xlsx", "ENCODING": "latin-1"}):
        with pytest.raises(DataError, match=r"birds\.xlsx is a spreadsheet.* export it as CSV"):
            load(root, **keys)


@pytest.mark.parametrize("odd", ["big\xa0crow", "big  crow", "Big_crow", "big crow\u200b"])
def test_a_label_that_looks_like_another_is_named(root, odd):
    rows = [row.replace(",crow,", ",big crow,") for row in csv_rows()]
    rows[3] = rows[3].replace("big crow", odd)
    write_csv(root / "a.csv", rows)
    with pytest.raises(DataError, match=r"does not have \(1\): .* Did you mean 'big crow'"):
        load(root, CSV="a.csv")


def test_lines_of_commas_are_no_rows(root):
    file = write_csv(root / "a.csv", [*csv_rows(), ",,", " , ,"])
    assert sizes(load(root, CSV=str(file))) == (4, 2, 2)


@pytest.mark.parametrize("label", ["1e9", "999999999999", "9" * 4000])
def test_a_huge_label_does_not_loop(root, label):
    rows = [row.replace(",crow,", ",0,").replace(",jay,", ",1,") for row in csv_rows()]
    draw(root / "z.jpg", 77)
    file = write_csv(root / "a.csv", [*rows, f"z.jpg,{label},train"])
    if len(label) > 100:
        assert load(root, CSV=str(file)).num_classes == 3  # a name like any other
        return
    with pytest.raises(DataError, match=r"without 2, 3, 4 and [\d,]+ more; count"):
        load(root, CSV=str(file))


def test_one_image_under_two_labels(root):
    file = write_csv(root / "a.csv", [*csv_rows(), "crow/00.jpg,jay,train"])
    with pytest.raises(DataError, match=r"crow/00.jpg \(crow\) and crow/00.jpg \(jay\)"):
        load(root, CSV=str(file))


# --- any input ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fixed_root(tmp_path_factory):
    return make_root(tmp_path_factory.mktemp("csv"))


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=300))
def test_any_bytes(fixed_root, content):
    file = fixed_root / "any.csv"
    file.write_bytes(content)
    with contextlib.suppress(UserError):
        read_csv(file, fixed_root, checks)


@settings(max_examples=300, deadline=2000)
@given(st.data())
def test_valid_files_with_a_few_changes(fixed_root, data):
    """Whatever is read, each image that comes back is one of the folder's, and in one part."""
    content = bytearray(text(data.draw(st.sampled_from(",;\t|"))).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    file = fixed_root / "changed.csv"
    file.write_bytes(content)
    with contextlib.suppress(UserError):
        parts = read_csv(file, fixed_root, checks)
        found = [path for rows in parts.values() for path, _ in rows]
        assert len(found) == len(set(found))
        assert all(path.startswith(str(fixed_root)) for path in found)
