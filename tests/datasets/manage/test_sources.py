"""`python -m datasets download`: the authors' address, then the hub's copy, or one's own mirror."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile

import pytest

import datasets.__main__ as cli
from dassl.utils.files import git_blob_id
from datasets.manage.catalog import Remote, Source, catalog
from tests.datasets import fixtures
from tests.datasets.build import build
from tests.datasets.manage.helpers import run
from tests.utils.hub import running

NAME, SPLIT = "DescribableTextures", "split_zhou_DescribableTextures.json"
MEMBERS = {"dtd/images/x.jpg": "x", f"dtd/{SPLIT}": "{}", "dtd/labels/l": "l"}


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def hub(monkeypatch):
    """A hub from which DescribableTextures can be had, as `authors.zip` or as `dtd.zip`."""
    with running(monkeypatch) as hub:
        hub.files = {"dtd.zip": zipped(MEMBERS)}
        official = Remote(
            "authors.zip", (f"{hub.url}/repo/authors.zip",), (("dtd/*", ""),), ("images",)
        )
        copy = Remote("mirror-dtd.zip", (f"{hub.url}/repo/dtd.zip",), (("**", ""),), ("images",))
        offer(monkeypatch, Source("official", (official,)), Source("mirror", (copy,)))
        yield hub


def offer(monkeypatch, *sources: Source) -> None:
    entry = dataclasses.replace(catalog()[NAME], sources=sources)
    monkeypatch.setattr(cli, "entries", lambda name: [entry])


def download(root, *options) -> int:
    return run("download", NAME, "--root", root, *options)


def placed(root) -> list[str]:
    return sorted(path.name for path in (root / "dtd").iterdir() if not path.name.startswith("."))


# --- in order -------------------------------------------------------------------------------------


def test_the_copy_is_fetched_where_the_authors_address_is_dead(hub, tmp_path, capsys):
    assert download(tmp_path) == 0
    assert placed(tmp_path) == ["images", "labels", SPLIT]
    printed = capsys.readouterr()
    assert "trying the next source: mirror" in printed.out and "error" not in printed.err


def test_the_copy_is_not_asked_for_where_the_authors_address_works(hub, tmp_path):
    hub.files["authors.zip"] = hub.files["dtd.zip"]
    assert download(tmp_path) == 0
    assert {path for where, path, *_ in hub.asked if where == "hub"} == {"/repo/authors.zip"}


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_leads_to_the_next_source(hub, tmp_path, code):
    hub.files["authors.zip"], hub.answers = b"", [code]
    assert download(tmp_path) == 0 and placed(tmp_path) == ["images", "labels", SPLIT]


def test_what_is_no_archive_leads_to_the_next_source(hub, tmp_path):
    hub.files["authors.zip"] = b"<html>quota</html>"
    assert download(tmp_path) == 0 and placed(tmp_path) == ["images", "labels", SPLIT]


def test_a_harmful_archive_leads_to_the_next_source(hub, tmp_path, capsys):
    hub.files["authors.zip"] = zipped({"dtd/images/x": "x", "../../evil": "x"})
    assert download(tmp_path) == 0
    assert not list(tmp_path.rglob("evil")) and not (tmp_path.parent / "evil").exists()


def test_all_that_was_tried_is_named_where_nothing_works(hub, tmp_path, capsys):
    hub.page = True
    assert download(tmp_path) == 1
    printed = capsys.readouterr()
    assert "authors.zip cannot be fetched: HTTP Error 404" in printed.err
    assert "dtd.zip sent a web page instead" in printed.err
    assert "--mirror FOLDER_OR_ADDRESS" in printed.out


def test_one_source_alone_is_tried_where_it_is_named(hub, tmp_path):
    assert download(tmp_path, "--source", "official") == 1
    assert not any("dtd.zip" in path for _, path, *_ in hub.asked)


def test_a_source_that_is_gone_is_not_asked(hub, tmp_path, monkeypatch):
    old = Remote("old.zip", (f"{hub.url}/repo/old.zip",), (("**", ""),), ("images",))
    offer(monkeypatch, Source("official", (old,), gone="404 since 2023"))
    assert download(tmp_path) == 1 and hub.asked == []


@pytest.mark.parametrize("name", ["dtd.zip", "mirror-dtd.zip"])
def test_what_came_by_hand_is_preferred(hub, tmp_path, name):
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / name).write_bytes(hub.files["dtd.zip"])
    assert download(tmp_path) == 0 and hub.asked == []
    assert name in placed(tmp_path)


def test_what_another_source_left_half_done_goes(hub, tmp_path):
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "authors.zip.part").write_bytes(b"half")
    assert download(tmp_path) == 0
    assert "authors.zip.part" not in placed(tmp_path)


def test_a_cut_connection_and_links_that_expire(hub, tmp_path):
    hub.cut = 150
    assert download(tmp_path) == 0 and placed(tmp_path) == ["images", "labels", SPLIT]
    assert sum(where == "cdn" for where, *_ in hub.asked) > 2


def test_a_token(hub, tmp_path, monkeypatch, capsys):
    hub.token = "hf_secret"
    assert download(tmp_path) == 1
    assert "HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert download(tmp_path) == 0
    printed = capsys.readouterr()
    assert hub.tokens_of("cdn") == {None} and "hf_secret" not in printed.out + printed.err


# --- the folder within the archive ----------------------------------------------------------------


@pytest.mark.parametrize("top", ["", "dtd/", "DTD-v1/", "a/b/dtd/"])
def test_the_folder_is_found_wherever_it_is(hub, tmp_path, top):
    junk = {"__MACOSX/dtd/images/._x.jpg": "x"}
    members = {f"{top}{name.removeprefix('dtd/')}": text for name, text in MEMBERS.items()}
    hub.files["dtd.zip"] = zipped({**junk, **members})
    assert download(tmp_path) == 0
    assert {"images", "labels", SPLIT} <= set(placed(tmp_path))
    assert (tmp_path / "dtd/images/x.jpg").read_text() == "x"


def test_an_archive_of_something_else(hub, tmp_path, capsys):
    hub.files["dtd.zip"] = zipped({"cats/1.jpg": "x"})
    assert download(tmp_path) == 1
    assert "should hold a folder with images, but holds cats" in capsys.readouterr().err


# --- a mirror of one's own ------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "dtd"])
@pytest.mark.parametrize("name", ["dtd.zip", "authors.zip"])
def test_a_folder(hub, tmp_path, inside, name):
    """The archive is unpacked from where it lies, and stays there."""
    own = tmp_path / "our archives" / inside
    own.mkdir(parents=True)
    (own / name).write_bytes(hub.files["dtd.zip"])
    assert download(tmp_path / "data", "--mirror", tmp_path / "our archives") == 0
    assert placed(tmp_path / "data") == ["images", "labels", SPLIT]
    assert hub.asked == [] and (own / name).is_file()


def test_an_address(hub, tmp_path):
    hub.files = {"own/dtd/dtd.zip": hub.files["dtd.zip"]}
    assert download(tmp_path, "--mirror", f"{hub.url}/repo/own/") == 0
    assert all("/own/" in path for where, path, *_ in hub.asked)


def test_a_mirror_is_asked_for_sources_that_are_gone(hub, tmp_path, monkeypatch):
    old = Remote("old.zip", ("http://127.0.0.1:1/old.zip",), (("**", ""),), ("images",))
    offer(monkeypatch, Source("official", (old,), gone="404 since 2023"))
    (tmp_path / "old.zip").write_bytes(hub.files["dtd.zip"])
    assert download(tmp_path / "data", "--mirror", tmp_path) == 0


def test_a_mirror_is_checked_too(hub, tmp_path, monkeypatch, capsys):
    wrong = Remote("dtd.zip", (), (("**", ""),), ("images",), size=7, sha256="0" * 64)
    offer(monkeypatch, Source("mirror", (wrong,)))
    (tmp_path / "dtd.zip").write_bytes(hub.files["dtd.zip"])
    assert download(tmp_path / "data", "--mirror", tmp_path) == 1
    assert "dtd.zip is there, but it has" in capsys.readouterr().err
    assert download(tmp_path / "data", "--mirror", tmp_path, "--unchecked") == 0


def test_a_mirror_that_lacks_the_archive(hub, tmp_path, capsys):
    assert download(tmp_path / "data", "--mirror", tmp_path) == 1
    assert hub.asked == [] and "dtd.zip cannot be fetched" in capsys.readouterr().err


@pytest.mark.parametrize(
    "mirror",
    ["no/such/folder", "https://me:hunter2@host/x", "https://host/x?key=hunter2", "https://"],
)
def test_what_is_no_mirror(hub, tmp_path, mirror, capsys):
    assert download(tmp_path, "--mirror", mirror) == 2
    printed = capsys.readouterr().err
    assert "--mirror is" in printed and "hunter2" not in printed and hub.asked == []


# --- images in another layout ---------------------------------------------------------------------


def test_lists_alone_are_fetched_where_torchvision_put_the_images(hub, tmp_path, monkeypatch):
    """SUN397's split comes to where its class looks for it, and no archive comes."""
    (tmp_path / "SUN397" / "a").mkdir(parents=True)
    hub.files["sun397.zip"] = zipped({"split_zhou_SUN397.json": "{}"})
    files = (
        Remote("mirror-sun397.zip", ("http://127.0.0.1:1/x",), (("**", ""),), ("SUN397",)),
        Remote("split_zhou_SUN397.json", (f"{hub.url}/repo/sun397.zip#split_zhou_SUN397.json",)),
    )
    entry = dataclasses.replace(catalog()["SUN397"], sources=(Source("mirror", files),))
    monkeypatch.setattr(cli, "entries", lambda name: [entry])
    assert run("download", "SUN397", "--root", tmp_path) == 0
    assert (tmp_path / "SUN397" / "split_zhou_SUN397.json").read_text() == "{}"
    assert not (tmp_path / "sun397").exists()


def test_nothing_is_fetched_where_torchvision_put_all(hub, tmp_path):
    (tmp_path / "dtd" / "dtd" / "images").mkdir(parents=True)
    assert download(tmp_path) == 0 and hub.asked == []
    assert placed(tmp_path) == ["dtd"]


# --- the official split ---------------------------------------------------------------------------


def test_a_split_out_of_the_archive_by_ranges_is_told_by_its_blob(
    hub, tmp_path, monkeypatch, capsys
):
    (tmp_path / "split").write_text("{}")
    address = f"{hub.url}/repo/dtd.zip#{SPLIT}"
    split = Remote(SPLIT, (address,), git_blob=git_blob_id(tmp_path / "split"))
    offer(monkeypatch, Source("official", (split,)))
    assert download(tmp_path) == 0 and placed(tmp_path) == [SPLIT]
    assert f"{SPLIT} is the official one (git blob {split.git_blob})" in capsys.readouterr().out
    (tmp_path / "dtd" / SPLIT).write_text("{ }")
    assert download(tmp_path) == 0
    assert f"{SPLIT} is not the official one" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Food101", "SUN397"])
def test_the_blobs_of_splits_that_do_not_ship(name):
    known = {
        "Food101": "39557040ee6501bd32aa8b5dfd75f7941a32f0a7",
        "SUN397": "8d5725db8f70bcf02245665304f863e68f96a24c",
    }
    for source in catalog()[name].sources:
        (split,) = [file for file in source.files if file.name.startswith("split_")]
        assert split.git_blob == known[name]
        assert any(url.endswith(f".zip#split_zhou_{name}.json") for url in split.urls)


def test_a_dataset_says_what_its_split_rests_on(tmp_path, monkeypatch):
    folder = fixtures.make("Food101", tmp_path, per_class=1)
    assert build("Food101", tmp_path).split_source == "split built here"
    path = folder / "split_zhou_Food101.json"
    lists = {part: rows for part, rows in json.loads(path.read_text()).items() if part in LISTS}
    path.write_text(json.dumps(lists))
    dataset = build("Food101", tmp_path)
    assert dataset.split_source == "split file of one's own"
    monkeypatch.setattr(type(dataset), "split_blob", git_blob_id(path))
    assert build("Food101", tmp_path).split_source == "official split"


LISTS = ("train", "val", "test")


def test_a_copy_of_a_split_that_ships_is_official(tmp_path):
    folder = fixtures.make(NAME, tmp_path)
    assert build(NAME, tmp_path).split_source == "official split"
    lists = fixtures.official_split(NAME)
    (folder / SPLIT).write_text(json.dumps(lists, indent=1))
    assert build(NAME, tmp_path).split_source == "official split"
    lists["val"].reverse()
    (folder / SPLIT).write_text(json.dumps(lists))
    assert build(NAME, tmp_path).split_source == "split file of one's own"
