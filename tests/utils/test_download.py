"""Downloads against a local server that misbehaves."""

from __future__ import annotations

import hashlib
import sys
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import download as module
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
        if how == "alternates":  # some bytes, then "there is nothing more", and so on for ever
            if asked:
                self.send_response(416)
                self.send_header("Content-Range", "bytes */5")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            how = "breaks"
        if how.startswith("length-"):
            self.send_response(200)
            self.send_header("Content-Length", how.removeprefix("length-").replace("_", "9" * 5000))
            self.end_headers()
            return self.wfile.write(CONTENT)
        if how.startswith("range-"):
            self.send_response(206)
            self.send_header("Content-Range", how.removeprefix("range-").replace("_", "9" * 5000))
            self.end_headers()
            return self.wfile.write(CONTENT)
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
    with pytest.raises(DownloadError, match="sends more than the 7 bytes"):
        download(f"{server.url}/no-length", tmp_path / "f.bin", size=7)


def test_a_server_that_never_comes_to_an_end_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_ATTEMPTS", 20)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with pytest.raises(DownloadError, match="cannot be fetched"):
        download(f"{server.url}/alternates", tmp_path / "f.bin")
    assert len(server.seen) <= 20


@pytest.mark.parametrize("length", ["abc", "-5", "_", "1e3", "0x10", "%20"])
def test_a_length_that_is_no_number(server, tmp_path, length):
    try:
        target = download(f"{server.url}/length-{length}", tmp_path / "f.bin", SHA256)
    except DownloadError:
        assert not (tmp_path / "f.bin").exists()
    else:
        assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("words", ["bytes%20_-1/2", "x", "bytes%20-1-2/3"])
def test_a_range_that_is_no_number(server, tmp_path, words):
    (tmp_path / "f.bin.part").write_bytes(CONTENT[:1000])
    assert download(f"{server.url}/range-{words}", tmp_path / "f.bin", SHA256)


def test_more_bytes_than_expected_are_not_awaited(server, tmp_path):
    with pytest.raises(DownloadError, match="sends more than the 1,000 bytes"):
        download(f"{server.url}/no-length", tmp_path / "f.bin", size=1000)


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


# --- the engine's own use -------------------------------------------------------------------------


@pytest.mark.parametrize("from_gdrive", [False, True])
def test_download_data(tmp_path, monkeypatch, from_gdrive):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("images/x.png", "x")
    fake_gdown(monkeypatch, archive.read_bytes())
    dataset = DatasetBase(train_x=[Datum("x", 0, 0, "x")])
    url = ID if from_gdrive else archive.as_uri()
    dataset.download_data(url, str(tmp_path / "new" / "b.zip"), from_gdrive=from_gdrive)
    assert (tmp_path / "new" / "images" / "x.png").read_text() == "x"
    assert sha256_of(tmp_path / "new" / "b.zip") == sha256_of(archive)
