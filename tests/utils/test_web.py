"""Downloads from a hub: tokens, redirects to links that expire, pages in place of files, ranges."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile

import pytest

from dassl.utils import download as module
from dassl.utils import remote_zip, web
from dassl.utils.download import DownloadError, check_file, download
from dassl.utils.remote_zip import download_member
from tests.utils.hub import running

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRET = "hf_secret"


@pytest.fixture
def hub(monkeypatch):
    with running(monkeypatch) as hub:
        hub.files["a.zip"] = CONTENT
        yield hub


# --- redirects ------------------------------------------------------------------------------------


def test_a_file_comes_from_where_the_hub_sends(hub, tmp_path):
    target = download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [where for where, *_ in hub.asked] == ["hub", "cdn"]


def test_a_link_that_expires_is_asked_for_anew(hub, tmp_path):
    """Each link serves one request, and each request breaks off: the hub gives a link each time."""
    hub.cut = 100_000
    assert download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256).read_bytes() == CONTENT
    starts = [asked for where, _, asked, _ in hub.asked if where == "cdn"]
    assert starts == [None, "bytes=100000-", "bytes=200000-"]


def test_a_link_that_has_expired_when_it_comes(hub, tmp_path):
    hub.lives = 0
    with pytest.raises(DownloadError, match=r"403.* may have expired.* the same command again"):
        download(f"{hub.url}/repo/a.zip", tmp_path / "a")
    assert len(hub.asked) == 2 * module.ATTEMPTS


def test_a_cdn_that_ignores_ranges_sends_all_again(hub, tmp_path):
    hub.ranges = False
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    assert download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256).read_bytes() == CONTENT


def test_a_page_in_place_of_the_file_spoils_nothing(hub, tmp_path):
    hub.page = True
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match="a web page instead of the file"):
        download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256)
    assert (tmp_path / "a.part").read_bytes() == CONTENT[:1000]
    hub.page = False
    assert download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256).read_bytes() == CONTENT


def test_no_signature_is_shown(hub, tmp_path):
    hub.lives = 0
    with pytest.raises(DownloadError) as caught:
        download(f"{hub.url}/repo/a.zip", tmp_path / "a")
    assert hub.links and not any(link in str(caught.value) for link in hub.links)


# --- answers that are errors ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_busy_is_asked_again(hub, tmp_path, code):
    hub.answers, hub.headers = [code, code], {"Retry-After": "0"}
    assert download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [403, 404, 410, 451])
def test_a_refusal_of_the_hub_itself_is_final(hub, tmp_path, code):
    hub.answers = [code] * 9
    with pytest.raises(DownloadError, match=f"HTTP Error {code}"):
        download(f"{hub.url}/repo/a.zip", tmp_path / "a")
    assert len(hub.asked) == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "waited"), [("7", 7), ("86400", module.MAX_WAIT), ("soon", 0), ("-3", 0)]
)
def test_the_pause_that_a_server_asks_for(hub, tmp_path, monkeypatch, said, waited):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    hub.answers, hub.headers = [429], {"Retry-After": said}
    download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256)
    assert pauses == [max(waited, module.PAUSE)]


# --- tokens ---------------------------------------------------------------------------------------


def test_a_token_is_sent_where_it_is_needed_and_nowhere_else(hub, tmp_path, monkeypatch):
    hub.token = SECRET
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}\n")
    assert download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256).read_bytes() == CONTENT
    assert hub.tokens_of("hub") == {None, f"Bearer {SECRET}"} and hub.tokens_of("cdn") == {None}


def test_no_token_is_sent_where_none_is_needed(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    download(f"{hub.url}/repo/a.zip", tmp_path / "a", SHA256)
    assert {token for *_, token in hub.asked} == {None}


def test_a_token_follows_within_its_host(hub, tmp_path, monkeypatch):
    hub.token = SECRET
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert download(f"{hub.url}/moved/a.zip", tmp_path / "a", SHA256).read_bytes() == CONTENT
    assert hub.tokens_of("cdn") == {None}


def test_a_token_is_for_its_own_host(hub, tmp_path, monkeypatch):
    hub.token = SECRET
    monkeypatch.setenv("HF_TOKEN", SECRET)
    other = hub.url.replace("127.0.0.1", "localhost")
    with pytest.raises(DownloadError, match="401"):
        download(f"{other}/repo/a.zip", tmp_path / "a")
    assert {token for *_, token in hub.asked} == {None}
    assert set(web.TOKENS) and all(web.origin(url) == url for url in web.TOKENS)


@pytest.mark.parametrize(
    ("token", "advice"),
    [("", "may need an account.* HF_TOKEN"), ("hf_old", "refused with the token of HF_TOKEN")],
)
def test_a_refusal_says_what_to_do_and_shows_no_token(hub, tmp_path, monkeypatch, token, advice):
    hub.token = SECRET
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DownloadError, match=advice) as caught:
        download(f"{hub.url}/repo/a.zip", tmp_path / "a")
    assert "hf_" not in str(caught.value)


@pytest.mark.parametrize("token", ["hf_a\nX: y", "hf_a b", "hf_\u20ac"])
def test_what_can_be_no_token_is_not_sent_and_not_shown(hub, tmp_path, monkeypatch, token):
    hub.token = SECRET
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DownloadError, match="HF_TOKEN holds blanks or characters") as caught:
        download(f"{hub.url}/repo/a.zip", tmp_path / "a")
    assert "hf_" not in str(caught.value) and hub.tokens_of("hub") == {None}


def test_the_real_hub_is_asked_in_https_alone():
    assert web.TOKENS == {"https://huggingface.co": "HF_TOKEN"}
    assert web.origin("http://huggingface.co/x") not in web.TOKENS
    assert web.origin("https://huggingface.co.example.org/x") not in web.TOKENS
    assert web.origin("https://huggingface.co@example.org/x") not in web.TOKENS


# --- git's ids ------------------------------------------------------------------------------------


def test_a_file_is_told_by_its_git_blob_id(tmp_path):
    (tmp_path / "a").write_bytes(b"hi\n")
    blob = "45b983be36b73c0788dc9cbcb76cbb80fc7bb057"  # `echo hi | git hash-object --stdin`
    assert check_file(tmp_path / "a", git_blob=blob) == ""
    assert f"its git blob id is {blob}, not 0" in check_file(tmp_path / "a", git_blob="0" * 40)


# --- a file within an archive ---------------------------------------------------------------------


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def test_a_member_comes_without_the_rest(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_zip, "BLOCK", 4096)
    split = b'{"train": []}' * 100
    hub.files["a.zip"] = zipped(data__images__x=CONTENT, data__split=split, data__images__y=CONTENT)
    hub.lives = 1
    target = download_member(f"{hub.url}/repo/a.zip#split", tmp_path / "split")
    assert target.read_bytes() == split
    asked = [asked for where, _, asked, _ in hub.asked if where == "cdn"]
    spans = [tuple(map(int, text.removeprefix("bytes=").split("-"))) for text in asked]
    assert sum(end - start + 1 for start, end in spans) < len(CONTENT) / 10


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"data__other": b"x"}, "holds no files called split"),
        ({"a__split": b"x", "b__split": b"y"}, "holds 2 files called split"),
    ],
)
def test_a_member_that_is_not_there_once(hub, tmp_path, members, message):
    hub.files["a.zip"] = zipped(**members)
    with pytest.raises(DownloadError, match=message):
        download_member(f"{hub.url}/repo/a.zip#split", tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_a_member_from_a_server_without_ranges(hub, tmp_path):
    hub.ranges, hub.files["a.zip"] = False, zipped(split=b"x")
    with pytest.raises(DownloadError, match="no ranges are served"):
        download_member(f"{hub.url}/repo/a.zip#split", tmp_path / "split")


@pytest.mark.parametrize("change", ["cut", "noise", "gone", "refused"])
def test_a_member_of_what_is_no_archive(hub, tmp_path, change):
    content = zipped(a=CONTENT, split=b"x" * 1000)
    hub.files["a.zip"] = content if change != "noise" else CONTENT
    hub.cut = 50 if change == "cut" else None
    hub.answers = {"gone": [404], "refused": [403]}.get(change, [])
    with pytest.raises(DownloadError, match=r"a\.zip"):
        download_member(f"{hub.url}/repo/a.zip#split", tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_a_member_with_another_checksum(hub, tmp_path):
    hub.files["a.zip"] = zipped(split=b"x")
    with pytest.raises(DownloadError, match="its git blob id is"):
        download_member(f"{hub.url}/repo/a.zip#split", tmp_path / "split", git_blob="0" * 40)


def test_a_member_that_would_fill_the_disk(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_zip, "MAX_BYTES", 1 << 19)
    hub.files["a.zip"] = zipped(split=bytes(1 << 20))
    with pytest.raises(DownloadError, match=r"1,048,576 bytes"):
        download_member(f"{hub.url}/repo/a.zip#split", tmp_path / "split")
    hub.files["a.zip"] = zipped(**{f"{i:0200}": b"" for i in range(4000)})
    with pytest.raises(DownloadError, match="table of contents"):
        download_member(f"{hub.url}/repo/a.zip#split", tmp_path / "split")


@pytest.mark.slow
def test_a_member_of_mutated_archives(hub, tmp_path):
    """The right content, or one sentence; never another content."""
    split = b'{"train": []}' * 20
    whole, rng = zipped(a=CONTENT[:500], split=split), random.Random(3)
    for _ in range(60):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            mutated[rng.randrange(500, len(mutated))] = rng.randrange(256)
        hub.files["a.zip"] = bytes(mutated)
        try:
            target = download_member(f"{hub.url}/repo/a.zip#split", tmp_path / "split")
        except DownloadError as error:
            assert "a.zip" in str(error)
        else:
            assert target.read_bytes() == split
            target.unlink()
