"""Downloads against a local server that misbehaves, and archives that mean harm."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import tarfile
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import DataError, archives
from dassl.utils import download as module
from dassl.utils.archives import UnpackError, extract
from dassl.utils.download import DownloadError, download, download_gdrive, gdrive_id, sha256_of

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the path says how: /ok, /breaks (after half), /no-length, /404, ..."""

    seen: list  # (path, Range header) of each request
    state: dict

    def log_message(self, *args):
        pass

    def do_GET(self):
        asked = self.headers.get("Range")
        self.seen.append((self.path, asked))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        how = self.path.strip("/")
        if how == "404":
            return self.send_error(404)
        if how == "busy-once" and self.state.setdefault("busy", True):
            self.state["busy"] = False
            return self.send_error(503)
        if how == "login":
            return self._send(b"\n<!DOCTYPE html><html>Please log in</html>")
        if how == "no-range":
            start = 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self._send(CONTENT[start:], start if how != "no-range" and asked else None, how)

    def _send(self, body, start=None, how=""):
        self.send_response(200 if start is None else 206)
        if start is not None:
            end = len(CONTENT) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(CONTENT)}")
        if how != "no-length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if how == "breaks" and len(body) > len(CONTENT) // 2:
            body = body[: len(body) // 2]
        if how == "always-breaks":
            body = body[:0]
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    handler = type("H", (Handler,), {"seen": [], "state": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.handle_error = lambda *_: None  # the client may hang up
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield types.SimpleNamespace(
            url=f"http://127.0.0.1:{httpd.server_port}", seen=handler.seen, httpd=httpd
        )
        httpd.shutdown()


# --- downloads ------------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_leaves_no_part(server, tmp_path):
    target = download(f"{server.url}/ok", tmp_path / "new" / "f.bin", SHA256, MD5, len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["f.bin"]


def test_a_file_that_is_there_is_kept(server, tmp_path):
    (tmp_path / "f.bin").write_bytes(CONTENT)
    download(f"{server.url}/ok", tmp_path / "f.bin", sha256=SHA256.upper())
    assert server.seen == []


def test_a_wrong_file_that_is_there_is_replaced(server, tmp_path):
    (tmp_path / "f.bin").write_bytes(b"old")
    assert download(f"{server.url}/ok", tmp_path / "f.bin", md5=MD5).read_bytes() == CONTENT


def test_a_broken_connection_is_resumed_in_the_same_call(server, tmp_path):
    target = download(f"{server.url}/breaks", tmp_path / "f.bin", SHA256)
    assert target.read_bytes() == CONTENT
    assert server.seen == [("/breaks", None), ("/breaks", f"bytes={len(CONTENT) // 2}-")]


def test_an_earlier_part_is_continued(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(CONTENT[:1000])
    assert download(f"{server.url}/ok", tmp_path / "f.bin").read_bytes() == CONTENT
    assert server.seen == [("/ok", "bytes=1000-")]


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    assert download(f"{server.url}/no-range", tmp_path / "f.bin").read_bytes() == CONTENT


def test_a_complete_part_needs_no_further_byte(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(CONTENT)
    assert download(f"{server.url}/ok", tmp_path / "f.bin").read_bytes() == CONTENT
    assert len(server.seen) == 1


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(CONTENT + b"more")
    assert download(f"{server.url}/ok", tmp_path / "f.bin").read_bytes() == CONTENT


def test_a_spoilt_part_is_fetched_anew(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    assert download(f"{server.url}/ok", tmp_path / "f.bin", SHA256).read_bytes() == CONTENT


def test_no_content_length(server, tmp_path):
    assert download(f"{server.url}/no-length", tmp_path / "f.bin").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, tmp_path):
    assert download(f"{server.url}/busy-once", tmp_path / "f.bin").read_bytes() == CONTENT


def test_a_server_that_always_breaks_off_is_given_up(server, tmp_path):
    with pytest.raises(DownloadError, match=r"broke off after 0 of .* the same command again"):
        download(f"{server.url}/always-breaks", tmp_path / "f.bin")
    assert len(server.seen) == module.ATTEMPTS


def test_wrong_checksum(server, tmp_path):
    with pytest.raises(DownloadError, match=r"its SHA256 is .*, not 0000.* put it at .*f\.bin"):
        download(f"{server.url}/ok", tmp_path / "f.bin", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_wrong_size_is_noticed_before_the_transfer(server, tmp_path):
    with pytest.raises(DownloadError, match=r"offers a file of 1,048,576 bytes; 7 were expected"):
        download(f"{server.url}/ok", tmp_path / "f.bin", size=7)
    assert list(tmp_path.iterdir()) == []


def test_wrong_size_without_content_length(server, tmp_path):
    with pytest.raises(DownloadError, match=r"it has 1,048,576 bytes, not 7"):
        download(f"{server.url}/no-length", tmp_path / "f.bin", size=7)


def test_404_is_final(server, tmp_path):
    with pytest.raises(DownloadError, match=r"/404 cannot be fetched: HTTP Error 404"):
        download(f"{server.url}/404", tmp_path / "f.bin")
    assert len(server.seen) == 1 and list(tmp_path.iterdir()) == []


def test_a_web_page_is_no_file(server, tmp_path):
    with pytest.raises(DownloadError, match="sent a web page instead"):
        download(f"{server.url}/login", tmp_path / "f.bin")
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 60)  # it must not wait
    with pytest.raises(DownloadError, match="Connection refused"):
        download("http://127.0.0.1:1/f", tmp_path / "f.bin")


def test_not_an_address(tmp_path):
    with pytest.raises(DownloadError, match="is no address"):
        download("example", tmp_path / "f.bin")


def test_file_addresses(tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    assert download((tmp_path / "a").as_uri(), tmp_path / "b").read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="cannot be fetched"):
        download((tmp_path / "none").as_uri(), tmp_path / "c")


# --- Google Drive, with a stand-in for gdown ------------------------------------------------------

ID = "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"


def fake_gdown(monkeypatch, body):
    def fetch(id, output, resume, quiet):
        if isinstance(body, Exception):
            raise body
        if body is not None:
            with open(output, "wb") as file:  # noqa: PTH123
                file.write(body)
        return output if body is not None else None

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=fetch))


@pytest.mark.parametrize(
    "url",
    [
        ID,
        f"gdrive:{ID}",
        f"https://drive.google.com/file/d/{ID}/view?usp=sharing",
        f"https://drive.google.com/uc?export=download&id={ID}",
        f"https://drive.google.com/open?id={ID}",
    ],
)
def test_gdrive_addresses(url):
    assert gdrive_id(url) == ID


def test_gdrive_address_without_an_id():
    with pytest.raises(DownloadError, match="no file id"):
        gdrive_id("https://drive.google.com/drive")


def test_gdrive_file(monkeypatch, tmp_path):
    fake_gdown(monkeypatch, CONTENT)
    assert download_gdrive(ID, tmp_path / "f", SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize("body", [None, OSError("quota exceeded"), b"<!DOCTYPE html>quota"])
def test_gdrive_refusal_says_what_to_do(monkeypatch, tmp_path, body):
    fake_gdown(monkeypatch, body)
    with pytest.raises(DownloadError, match="in a browser"):
        download_gdrive(ID, tmp_path / "f")
    assert not (tmp_path / "f").exists()


# --- archives -------------------------------------------------------------------------------------


def tar_with(path, *members, mode="w"):
    """Writes a tar archive of (name, content) and ready-made TarInfo members."""
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_with(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def files_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar(tmp_path, mode):
    archive = tar_with(tmp_path / "a", ("d/x.txt", b"x"), ("./y", b"y"), mode=mode)
    extract(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["d/x.txt", "y"]


def test_zip(tmp_path):
    extract(zip_with(tmp_path / "a.zip", ("d/x.txt", "x"), ("e/", "")), tmp_path / "out")
    assert files_below(tmp_path / "out") == ["d/x.txt"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "d/../../evil", "C:/evil", "..\\evil"])
def test_names_that_leave(tmp_path, name):
    for archive in (
        tar_with(tmp_path / "a.tar", (name, b"x")),
        zip_with(tmp_path / "a.zip", (name, "x")),
    ):
        with pytest.raises(DataError, match="would leave"):
            extract(archive, tmp_path / "in" / "out")
    assert files_below(tmp_path) == ["a.tar", "a.zip"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_that_leave(tmp_path, target, kind):
    with pytest.raises(DataError, match="would leave"):
        extract(tar_with(tmp_path / "a.tar", link("x", target, kind)), tmp_path / "out")


def test_symbolic_links_are_passed_over_and_hard_links_kept(tmp_path):
    archive = tar_with(
        tmp_path / "a.tar", ("x", b"x"), link("s", "x"), link("h", "x", tarfile.LNKTYPE)
    )
    extract(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["h", "x"]


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    archive = tar_with(tmp_path / "a.tar", link("d", "e"), ("d/x", b"x"))
    extract(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "d").is_symlink()


def test_zip_symbolic_link_is_passed_over(tmp_path):
    info = zipfile.ZipInfo("s")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
        file.writestr("x", "x")
    extract(tmp_path / "a.zip", tmp_path / "out")
    assert files_below(tmp_path / "out") == ["x"]


def test_devices(tmp_path):
    info = tarfile.TarInfo("null")
    info.type = tarfile.CHRTYPE
    with pytest.raises(DataError, match="no plain file"):
        extract(tar_with(tmp_path / "a.tar", info), tmp_path / "out")


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_SIZE", 1000)
    zeros = b"\0" * (1 << 20)
    for archive in (
        zip_with(tmp_path / "a.zip", ("x", zeros)),
        tar_with(tmp_path / "a.tgz", ("x", zeros), mode="w:gz"),
    ):
        with pytest.raises(DataError, match="would become more than"):
            extract(archive, tmp_path / "out")
    assert files_below(tmp_path) == ["a.tgz", "a.zip"]


def test_cut_short(tmp_path):
    noise = os.urandom(1 << 16)
    for archive in (
        zip_with(tmp_path / "a.zip", ("x", noise)),
        tar_with(tmp_path / "a.tgz", ("x", noise), mode="w:gz"),
        tar_with(tmp_path / "a.tar", ("x", noise)),
    ):
        archive.write_bytes(archive.read_bytes()[:40_000])
        with pytest.raises(DataError, match=r"neither a zip nor a tar|cannot be unpacked"):
            extract(archive, tmp_path / "out")


def test_flipped_bytes(tmp_path):
    archive = zip_with(tmp_path / "a.zip", ("x", os.urandom(1000)))
    content = bytearray(archive.read_bytes())
    content[500] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DataError, match="delete it and fetch it anew"):
        extract(archive, tmp_path / "out")


def test_not_an_archive(tmp_path):
    (tmp_path / "a.zip").write_text("hello")
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(UnpackError, match="cannot be unpacked to"):
        extract(tar_with(tmp_path / "a.tar", ("d/x", b"x")), tmp_path / "out")


# --- the engine's own use -------------------------------------------------------------------------


@pytest.mark.parametrize("from_gdrive", [False, True])
def test_download_data(tmp_path, monkeypatch, from_gdrive):
    archive = zip_with(tmp_path / "a.zip", ("images/x.png", "x"))
    fake_gdown(monkeypatch, archive.read_bytes())
    dataset = DatasetBase(train_x=[Datum("x", 0, 0, "x")])
    url = ID if from_gdrive else archive.as_uri()
    dataset.download_data(url, str(tmp_path / "new" / "b.zip"), from_gdrive=from_gdrive)
    assert files_below(tmp_path / "new") == ["b.zip", "images/x.png"]
    assert sha256_of(tmp_path / "new" / "b.zip") == sha256_of(archive)
