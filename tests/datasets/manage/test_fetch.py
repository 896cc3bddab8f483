"""`python -m datasets download`, from a local server."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shutil
import tarfile
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import datasets.__main__ as cli
from datasets.manage.catalog import Remote, Source, catalog
from tests.datasets import fixtures
from tests.datasets.manage.helpers import check, run


@pytest.fixture
def server(tmp_path):
    """Serves the folder `served`; the list holds the paths asked for."""
    served = tmp_path / "served"
    served.mkdir()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.handle_error = lambda *_: None  # the client may hang up
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", served, asked
        httpd.shutdown()


@pytest.fixture
def offer(monkeypatch, server):
    """Replaces the sources of DescribableTextures by files of the local server."""
    url, _, _ = server

    def replace(*files: Remote, **more) -> None:
        here = [
            dataclasses.replace(file, urls=tuple(f"{url}/{u}" for u in file.urls or (file.name,)))
            for file in files
        ]
        sources = (Source("official", tuple(here)), Source("mirror", tuple(here), "moved in 2020"))
        entry = dataclasses.replace(catalog()["DescribableTextures"], sources=sources, **more)
        monkeypatch.setattr(cli, "entries", lambda name: [entry])

    return replace


def archive_of(folder: Path, archive: Path, top: str) -> Remote:
    """Packs a folder as the official archive does, and says how to get it."""
    with tarfile.open(archive, "w:gz", compresslevel=1, dereference=True) as file:
        file.add(folder, arcname=top)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    places = ((f"{top}/*", ""),)
    return Remote(archive.name, (), places, ("images",), size=archive.stat().st_size, md5=md5)


def small(served: Path, name="a.zip", **members) -> Remote:
    with zipfile.ZipFile(served / name, "w") as file:
        for path, content in (members or {"dtd/images/x.jpg": "x", "dtd/labels/l": "l"}).items():
            file.writestr(path, content)
    return Remote(name, (), (("dtd/*", ""),), ("images",))


def download(root, *options) -> int:
    return run("download", "DescribableTextures", "--root", root, *options)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.slow
def test_download_then_verify(server, offer, tmp_path, capsys):
    _, served, asked = server
    folder = fixtures.make("DescribableTextures", tmp_path / "made")
    offer(archive_of(folder, served / "dtd.tar.gz", "dtd"))
    assert download(tmp_path / "data") == 0
    assert visible(tmp_path / "data" / "dtd") == ["images"]
    code, out = check(capsys, tmp_path / "data")
    assert code == 0 and "DescribableTextures: OK" in out and len(asked) == 1


def test_what_is_there_is_never_touched(server, offer, tmp_path, capsys):
    _, served, asked = server
    offer(small(served))
    (tmp_path / "data/dtd/images").mkdir(parents=True)
    assert download(tmp_path / "data") == 0
    assert asked == [] and visible(tmp_path / "data/dtd/images") == []
    assert "kept as it is: images" in capsys.readouterr().out


def test_only_what_is_missing_is_placed(server, offer, tmp_path):
    _, served, _ = server
    offer(small(served))
    (tmp_path / "data/dtd").mkdir(parents=True)
    (tmp_path / "data/dtd/labels").write_text("mine")
    assert download(tmp_path / "data") == 0
    assert (tmp_path / "data/dtd/labels").read_text() == "mine"
    assert visible(tmp_path / "data/dtd") == ["images", "labels"]


def test_archive_fetched_by_hand_is_used_and_kept(server, offer, tmp_path):
    _, served, asked = server
    offer(small(served))
    (tmp_path / "data/dtd").mkdir(parents=True)
    shutil.move(served / "a.zip", tmp_path / "data/dtd/a.zip")
    assert download(tmp_path / "data") == 0
    assert asked == [] and visible(tmp_path / "data/dtd") == ["a.zip", "images", "labels"]


def test_archive_by_hand_with_another_checksum(server, offer, tmp_path, capsys):
    _, served, _ = server
    offer(dataclasses.replace(small(served), md5="0" * 32))
    (tmp_path / "data/dtd").mkdir(parents=True)
    shutil.move(served / "a.zip", tmp_path / "data/dtd/a.zip")
    assert download(tmp_path / "data") == 1
    assert "its MD5 is" in capsys.readouterr().err
    assert download(tmp_path / "data", "--unchecked", "--keep-archives") == 0


def test_a_dead_link_names_the_other_ways(offer, tmp_path, capsys):
    offer(Remote("gone.zip", (), (("dtd/*", ""),), ("images",)), elsewhere=("https://example.org",))
    assert download(tmp_path / "data") == 1
    printed = capsys.readouterr()
    assert "gone.zip cannot be fetched: HTTP Error 404" in printed.err
    assert "--source mirror   (gone: moved in 2020)" in printed.out
    assert "by hand into" in printed.out and "https://example.org" in printed.out


def test_the_second_address_is_tried(server, offer, tmp_path):
    _, served, asked = server
    offer(dataclasses.replace(small(served), urls=("gone.zip", "a.zip")))
    assert download(tmp_path / "data") == 0 and len(asked) > 1


def test_one_file_that_fails_does_not_stop_the_others(server, offer, tmp_path, capsys):
    _, served, _ = server
    offer(Remote("split.json", ()), small(served))
    assert download(tmp_path / "data") == 1
    assert visible(tmp_path / "data/dtd") == ["images", "labels"]
    (served / "split.json").write_text("{}")
    assert download(tmp_path / "data") == 0
    assert visible(tmp_path / "data/dtd") == ["images", "labels", "split.json"]


def test_what_came_with_another_file_is_not_fetched(server, offer, tmp_path):
    _, served, asked = server
    offer(small(served), Remote("labels", ()))
    assert download(tmp_path / "data") == 0 and len(asked) == 1


def test_archive_within_an_archive(server, offer, tmp_path):
    _, served, _ = server
    inner = tmp_path / "inner.tar.gz"
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.jpg").write_text("x")
    with tarfile.open(inner, "w:gz") as file:
        file.add(tmp_path / "images", arcname="images")
    remote = small(served, **{"top/inner.tar.gz": inner.read_bytes()})
    offer(
        dataclasses.replace(
            remote, inner="top/inner.tar.gz", places=(("images", "images"),), wanted=()
        )
    )
    assert download(tmp_path / "data") == 0
    assert visible(tmp_path / "data/dtd/images") == ["x.jpg"]


def test_harmful_archive_leaves_nothing(server, offer, tmp_path, capsys):
    _, served, _ = server
    offer(small(served, **{"dtd/images/x": "x", "../../evil": "x"}))
    assert download(tmp_path / "data") == 1
    assert "would leave" in capsys.readouterr().err
    assert visible(tmp_path / "data/dtd") == ["a.zip"]
    assert not list((tmp_path / "data/dtd").glob(".unpacking*"))


def test_archive_with_another_content(server, offer, tmp_path, capsys):
    _, served, _ = server
    offer(small(served, **{"other/x": "x"}))
    assert download(tmp_path / "data") == 1
    assert "should hold dtd, but holds other" in capsys.readouterr().err


def test_leftovers_of_a_killed_run_are_removed(server, offer, tmp_path):
    _, served, _ = server
    offer(small(served))
    (tmp_path / "data/dtd/.unpacking-old/x").mkdir(parents=True)
    assert download(tmp_path / "data") == 0
    assert not (tmp_path / "data/dtd/.unpacking-old").exists()


def test_two_processes_at_once(server, offer, tmp_path):
    """One fetches, the other waits and finds everything there."""
    _, served, asked = server
    offer(small(served))
    codes = []
    threads = [
        threading.Thread(target=lambda: codes.append(download(tmp_path / "data"))) for _ in "12"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0] and len(asked) == 1


def test_too_little_room(server, offer, tmp_path, capsys):
    _, served, _ = server
    offer(dataclasses.replace(small(served), size=10**18))
    assert download(tmp_path / "data") == 1
    assert "GB free" in capsys.readouterr().err


def test_folder_that_cannot_be_written(server, offer, tmp_path, capsys):
    _, served, _ = server
    offer(small(served))
    (tmp_path / "dtd").write_text("a file in the way")
    assert download(tmp_path) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["DescribableTextures", "Digits", "all"])
@pytest.mark.parametrize("command", ["download", "status"])
def test_a_mistyped_root_is_not_created(command: str, name: str, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    words = [name] if command == "download" else []
    assert run(command, *words, "--root", tmp_path / "pictrues") == 2
    said = capsys.readouterr().err
    assert "Did you mean 'pictures'?" in said and f"\n  mkdir -p {tmp_path}/pictrues" in said
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_unknown_source(tmp_path, capsys):
    assert download(tmp_path, "--source", "miror") == 2
    assert "Did you mean 'mirror'?" in capsys.readouterr().err


def test_imagenet_gets_instructions(tmp_path, capsys):
    assert run("download", "ImageNet", "--root", tmp_path) == 2
    out = capsys.readouterr().out
    assert "https://image-net.org/signup.php" in out and f"{tmp_path}/imagenet/images/val" in out
