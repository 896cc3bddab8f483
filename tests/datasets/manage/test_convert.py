"""`python -m datasets convert`: parquet files of a hub, matched to the official split."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

from datasets.manage import hub_parquet
from datasets.manage.convert import official_labels
from datasets.manage.sources import folder_of
from datasets.readers.parquet import ParquetImages
from tests.datasets.build import build
from tests.datasets.manage.helpers import run
from tests.utils.hub import running

CLASSES, PER_PART = ("AnnualCrop", "Forest", "Pasture"), {"train": 3, "val": 1, "test": 2}
NAME, SPLIT = "EuroSAT", "split_zhou_EuroSAT.json"


@pytest.fixture
def pyarrow():
    pytest.importorskip("pyarrow")
    return pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def root(tmp_path) -> Path:
    """A root in which EuroSAT has a small split and no images."""
    lists = {
        part: [
            [f"{name}/{name}_{part}{i}.jpg", label, name]
            for label, name in enumerate(CLASSES)
            for i in range(count)
        ]
        for part, count in PER_PART.items()
    }
    (tmp_path / "data/eurosat").mkdir(parents=True)
    (tmp_path / "data/eurosat" / SPLIT).write_text(json.dumps(lists))
    return tmp_path / "data"


def images(root) -> list[str]:
    rows = json.loads((root / "eurosat" / SPLIT).read_text()).values()
    return [path for part in rows for path, *_ in part]


def content(path: str) -> bytes:
    return b"\xff\xd8" + path.encode() + b"\xff\xd9"


def hub_files(folder: Path, root: Path, extra=(), bare=False, files=2, **columns) -> Path:
    """Writes rows in another order and another division than the official one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = [*images(root), *extra]
    random.Random(1).shuffle(paths)
    folder.mkdir(parents=True, exist_ok=True)
    order = sorted(CLASSES, reverse=True)  # labels of the hub are others
    for number in range(files):
        some = paths[number::files]
        table: dict = {
            "image": [{"bytes": content(path), "path": None} for path in some],
            "label": [order.index(path.split("/")[0]) for path in some],
        }
        if not bare:
            table["image_id"] = [Path(path).stem for path in some]
        table |= {name: [make(path) for path in some] for name, make in columns.items()}
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        arrays = {n: pa.array(v, kind) if n == "image" else pa.array(v) for n, v in table.items()}
        pq.write_table(pa.table(arrays), folder / f"train-{number:05d}.parquet", row_group_size=4)
    return folder


def convert(root, source, *options) -> int:
    return run("convert", NAME, "--root", root, "--from", source, *options)


def check_all(root) -> None:
    folder = root / "eurosat" / "2750"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")}
    assert there == set(images(root))
    assert all((folder / path).read_bytes() == content(path) for path in there)
    assert folder.stat().st_mode & 0o077 or sys.platform == "win32"  # others may read it
    assert build(NAME, root).split_source == "split file of one's own"


def nothing_written(root) -> None:
    assert [path.name for path in (root / "eurosat").glob("[!.]*")] == [SPLIT]
    assert not list((root / "eurosat").glob(".unpacking*"))


# --- by names -------------------------------------------------------------------------------------


def test_rows_are_matched_by_the_column_that_names_the_images(pyarrow, root, tmp_path, capsys):
    extra = ["Forest/Forest_99.jpg"]
    source = hub_files(tmp_path / "hub", root, extra, note=lambda path: "a satellite photo")
    assert convert(root, source) == 0
    assert "matched by column image_id; in no part of the split: 1 row\n" in capsys.readouterr().out
    check_all(root)


@pytest.mark.parametrize(
    "name",
    [
        lambda path: Path(path).name,
        lambda path: f"/data/2750/{path}",
        lambda path: path.replace("/", "\\"),
        lambda path: path.replace(".jpg", ".JPEG"),
    ],
)
def test_forms_of_names(pyarrow, root, tmp_path, name):
    assert convert(root, hub_files(tmp_path / "hub", root, bare=True, file=name)) == 0
    check_all(root)


def test_one_file(pyarrow, root, tmp_path):
    source = hub_files(tmp_path / "hub", root, files=1) / "train-00000.parquet"
    assert convert(root, source) == 0
    check_all(root)


def test_names_of_other_images_are_noticed_by_their_labels(pyarrow, root, tmp_path, capsys):
    """Numbered anew: the names are all there, but mean others."""
    other = dict(zip(images(root), images(root)[1:] + images(root)[:1]))
    source = hub_files(tmp_path / "hub", root, bare=True, file=lambda path: other[path])
    assert convert(root, source) == 2
    assert "their names mean other images" in capsys.readouterr().err
    nothing_written(root)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "there is no column of texts|column 'image.path' names 0"),
        ({"file": lambda path: path.split("/")[0]}, "names 0; .* --contents FILE"),
        ({"file": lambda path: "Forest/Forest_val0"}, "names 1;"),
    ],
)
def test_rows_without_names(pyarrow, root, tmp_path, capsys, columns, message):
    assert convert(root, hub_files(tmp_path / "hub", root, bare=True, **columns)) == 2
    assert re.search(message, capsys.readouterr().err)
    nothing_written(root)


def test_one_image_twice(pyarrow, root, tmp_path, capsys):
    source = hub_files(tmp_path / "hub", root, [images(root)[0]])
    assert convert(root, source) == 2
    assert "are both called" in capsys.readouterr().err
    nothing_written(root)


def test_images_that_were_encoded_anew_are_counted(pyarrow, root, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(globals(), "content", lambda path: b"\x89PNG" + path.encode())
    assert convert(root, hub_files(tmp_path / "hub", root)) == 0
    assert "in another format than .jpg says: 18 images" in capsys.readouterr().out


def test_what_is_there_stays(pyarrow, root, tmp_path, capsys):
    (root / "eurosat" / "2750").mkdir()
    assert convert(root, hub_files(tmp_path / "hub", root)) == 0
    assert "kept as it is" in capsys.readouterr().out
    assert list((root / "eurosat" / "2750").iterdir()) == []


# --- by bytes -------------------------------------------------------------------------------------


def digests(tmp_path, root, mark=" ") -> Path:
    lines = [f"{hashlib.sha256(content(p)).hexdigest()} {mark}{p}\n" for p in images(root)]
    (tmp_path / "sums").write_text("".join(lines))
    return tmp_path / "sums"


@pytest.mark.parametrize("mark", [" ", "*", " ./"])
def test_rows_without_names_are_matched_by_their_bytes(pyarrow, root, tmp_path, mark):
    source = hub_files(tmp_path / "hub", root, ["Forest/Forest_99.jpg"], bare=True)
    assert convert(root, source, "--contents", digests(tmp_path, root, mark)) == 0
    check_all(root)


def test_copies_get_all_of_their_names(pyarrow, root, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "content", lambda path: b"\xff\xd8 the same \xff\xd9")
    source = hub_files(tmp_path / "hub", root, bare=True)
    assert convert(root, source, "--contents", digests(tmp_path, root)) == 0
    check_all(root)


def test_bytes_that_are_in_no_row(pyarrow, root, tmp_path, capsys, monkeypatch):
    sums = digests(tmp_path, root)
    monkeypatch.setitem(
        globals(), "content", lambda path: b"\xff\xd8 encoded anew " + path.encode()
    )
    assert convert(root, hub_files(tmp_path / "hub", root, bare=True), "--contents", sums) == 2
    assert "18 of the 18 official images are in no row" in capsys.readouterr().err
    nothing_written(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks 18 of the 18"),
        ("abc  x.jpg\n", "line 1"),
        (f"{'0' * 64}  x.jpg\n", "lacks 18"),
        (None, "cannot be read"),
    ],
)
def test_what_are_no_digests(pyarrow, root, tmp_path, capsys, text, message):
    if text is not None:
        (tmp_path / "sums").write_text(text)
    source = hub_files(tmp_path / "hub", root, bare=True)
    assert convert(root, source, "--contents", tmp_path / "sums") == 2
    assert message in capsys.readouterr().err
    nothing_written(root)


# --- from the hub ---------------------------------------------------------------------------------

NAME_THERE = "timm/eurosat-rgb"
LIST = f"api/datasets/{NAME_THERE}/parquet"


@pytest.fixture
def hub(pyarrow, root, tmp_path, monkeypatch):
    """A hub that has EuroSAT in two parts."""
    source = hub_files(tmp_path / "source", root)
    with running(monkeypatch) as hub:
        monkeypatch.setattr(hub_parquet, "HUB", f"{hub.url}/repo")
        parts = {}
        for number, part in enumerate(("train", "test")):
            name = f"{LIST}/default/{part}/0.parquet"
            hub.files[name] = (source / f"train-{number:05d}.parquet").read_bytes()
            parts[part] = [f"{hub.url}/repo/{name}"]
        hub.files[LIST] = json.dumps({"default": parts}).encode()
        yield hub


def test_a_name_on_the_hub(hub, root, monkeypatch):
    hub.token, hub.cut = "hf_secret", 2000
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert convert(root, f"hub:{NAME_THERE}") == 0
    check_all(root)
    assert not list((root / "eurosat").glob(".parquet*")) and hub.tokens_of("cdn") == {None}


def test_what_came_is_kept_until_it_is_of_use(hub, root, tmp_path):
    whole = hub.files.pop(f"{LIST}/default/test/0.parquet")
    assert convert(root, f"hub:{NAME_THERE}") == 2
    nothing_written(root)
    hub.files[f"{LIST}/default/test/0.parquet"] = whole
    hub.asked.clear()
    assert convert(root, f"hub:{NAME_THERE}") == 0
    check_all(root)
    assert not any("/train/" in path for _, path, *_ in hub.asked)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "gives no list"),
        ({}, "gives no list"),
        ({"default": {"train": 7}}, "gives no list"),
        ({"a": {"train": []}, "b": {"train": []}}, "has several versions (a, b)"),
        ({"default": {"train": ["file:///etc/passwd"]}}, "is not its own"),
        ({"default": {"train": ["https://huggingface.co.example.org/x"]}}, "is not its own"),
        ({"default": {"../../x": ["HUB/x"]}}, "is not its own"),
        ({"default": {"train": []}}, "no folder with any"),
    ],
)
def test_odd_lists(hub, root, capsys, content, message):
    text = json.dumps(content).replace("HUB", f"{hub.url}/repo")
    hub.files[LIST] = text.encode()
    assert convert(root, f"hub:{NAME_THERE}") == 2
    assert message in capsys.readouterr().err
    nothing_written(root)


def test_a_name_that_the_hub_does_not_know(hub, root, capsys):
    assert convert(root, "hub:timm/eurosat") == 2
    assert "HTTP Error 404" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["timm", "a/b/c", "../x", "a/../b", ""])
def test_what_is_no_name_on_the_hub(hub, root, capsys, name):
    assert convert(root, f"hub:{name}") == 2
    assert "is like hub:timm/eurosat-rgb" in capsys.readouterr().err and hub.asked == []


def test_nothing_is_fetched_where_the_images_are(hub, root):
    (root / "eurosat" / "2750").mkdir()
    assert convert(root, f"hub:{NAME_THERE}") == 0 and hub.asked == []


# --- what is no such file -------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 3, 100, -20])
def test_damaged_files(pyarrow, root, tmp_path, capsys, cut):
    path = hub_files(tmp_path / "hub", root) / "train-00001.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    assert convert(root, tmp_path / "hub") == 2
    assert "train-00001.parquet cannot be read" in capsys.readouterr().err
    nothing_written(root)


def test_mutated_files(pyarrow, root, tmp_path, capsys):
    path = hub_files(tmp_path / "hub", root, files=1) / "train-00000.parquet"
    whole, rng = path.read_bytes(), random.Random(2)
    for _ in range(100):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        path.write_bytes(mutated)
        if convert(root, path) == 0:
            shutil.rmtree(root / "eurosat" / "2750")
        else:
            assert "error: " in capsys.readouterr().err
        nothing_written(root)


def test_images_that_lie_elsewhere(pyarrow, root, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(globals(), "content", lambda path: None)
    assert convert(root, hub_files(tmp_path / "hub", root)) == 2
    assert "has no image in it" in capsys.readouterr().err
    nothing_written(root)


def test_files_of_other_columns(pyarrow, root, tmp_path, capsys):
    hub_files(tmp_path / "hub", root, files=1)
    pa = pytest.importorskip("pyarrow")
    pyarrow.write_table(pa.table({"x": [1]}), tmp_path / "hub" / "z.parquet")
    assert convert(root, tmp_path / "hub") == 2
    assert "has no column" in capsys.readouterr().err
    pyarrow.write_table(pa.table({"x": [1]}), tmp_path / "hub" / "a.parquet")
    assert convert(root, tmp_path / "hub") == 2
    assert "has no columns of images" in capsys.readouterr().err
    nothing_written(root)


def test_no_files(pyarrow, root, tmp_path, capsys):
    assert convert(root, tmp_path / "none") == 2
    assert "is no parquet file and no folder with any" in capsys.readouterr().err


@pytest.mark.parametrize("version", [None, "13.0.0", "9"])
def test_without_pyarrow(root, tmp_path, capsys, monkeypatch, version):
    old = types.SimpleNamespace(__version__=version, parquet=None) if version else None
    monkeypatch.setitem(sys.modules, "pyarrow", old)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", old)
    assert convert(root, tmp_path) == 2
    assert "pip install 'pyarrow>=14.0.1'" in capsys.readouterr().err
    nothing_written(root)


# --- which images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../x.jpg", "a/../../x.jpg", "C:/x.jpg"])
def test_a_split_file_leads_nowhere_else(pyarrow, root, tmp_path, capsys, path):
    source = hub_files(tmp_path / "hub", root)
    (root / "eurosat" / SPLIT).write_text(
        json.dumps({"train": [[path, 0, "x"]], "val": [], "test": []})
    )
    assert convert(root, source) == 2
    assert "outside the dataset" in capsys.readouterr().err
    nothing_written(root)


@pytest.mark.parametrize("name", ["FGVCAircraft", "Food101", "ImageNet", "all"])
def test_datasets_without_a_list_of_images(tmp_path, capsys, name):
    assert run("convert", name, "--root", tmp_path, "--from", tmp_path) == 2
    assert "has no split file" in capsys.readouterr().err or name == "all"


def test_official_images_of_a_split_that_ships(tmp_path):
    from datasets.manage.catalog import catalog

    entry = catalog()["OxfordPets"]
    labels = official_labels(entry, folder_of(entry, tmp_path))
    assert len(labels) == 7349 and labels["Abyssinian_100.jpg"] == 0


def test_rows_say_all_but_the_images(pyarrow, root, tmp_path):
    rows = ParquetImages(hub_files(tmp_path / "hub", root)).rows()
    assert set(rows.texts) == {"image.path", "image_id"} and len(rows.labels) == 18
