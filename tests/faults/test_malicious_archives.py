"""Archives that mean harm, built here: each is refused in one sentence, nothing leaves the folder.

A corpus of tar and zip archives; then arbitrary bytes and mutated archives (hypothesis).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.utils import DataError, UserError, archives
from dassl.utils.archives import UnpackError, extract
from tests.utils.test_archives import link, tar_with, zip_link, zip_with

WITHIN = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
GB = 1 << 30


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = special(name, kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def tgz(path: Path, *pieces: bytes) -> Path:
    """Writes raw pieces, gzipped; a piece may be a long run of zeros at no cost."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for piece in pieces:
            file.write(piece)
    return path


def zip_special(name: str, kind: int) -> tuple[zipfile.ZipInfo, str]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info, ""


def patched(path: Path, mark: bytes, offset: int, content: bytes) -> Path:
    """Changes bytes behind each `mark` of a finished archive."""
    data = bytearray(path.read_bytes())
    at = data.find(mark)
    while at >= 0:
        data[at + offset : at + offset + len(content)] = content
        at = data.find(mark, at + 1)
    path.write_bytes(data)
    return path


HARD = tarfile.LNKTYPE
TARS: dict[str, tuple] = {
    "absolute": (("/tmp/evil", b"x"),),
    "absolute with two slashes": (("//tmp/evil", b"x"),),
    "parent": (("../evil", b"x"),),
    "parent within": (("a/b/../../../evil", b"x"),),
    "parent of windows": (("..\\evil", b"x"),),
    "mixed separators": (("a\\../..\\evil", b"x"),),
    "drive": (("C:/evil", b"x"),),
    "drive without a slash": (("C:evil", b"x"),),
    "share": (("\\\\host\\share\\evil", b"x"),),
    "the folder itself": ((".", b"x"),),
    "the folder itself, spelled out": (("a/..", b"x"),),
    "symbolic link outside": (link("x", "/etc/passwd"),),
    "symbolic link to a parent": (link("x", "../../etc/passwd"),),
    "hard link outside": (link("x", "/etc/passwd", HARD),),
    "hard link to a parent": (link("x", "../../etc/passwd", HARD),),
    "hard link to a symbolic link": (link("l", "../evil"), link("h", "l", HARD), ("h", b"x")),
    "hard link to a link passed over": (link("l", "e"), link("h", "l", HARD), ("h", b"x")),
    "symbolic link, then written": (link("d", ".."), ("d/evil", b"x")),
    "symbolic link inside, then written": (link("d", "e"), ("d/evil", b"x")),
    "chain of links": (link("a", "b"), link("b", "c"), link("c", "../evil")),
    "link to itself": (link("x", "x"),),
    "link to a folder": (special("d", tarfile.DIRTYPE), link("x", "d"), ("x/evil", b"x")),
    "hard link to a folder": (special("d", tarfile.DIRTYPE), link("x", "d", HARD)),
    "link to the folder": (link("x", "."),),
    "link to a later file": (link("x", "y"), ("y", b"y")),
    "link to nothing": (link("x", ""),),
    "character device": (special("null", tarfile.CHRTYPE),),
    "block device": (special("sda", tarfile.BLKTYPE),),
    "pipe": (special("pipe", tarfile.FIFOTYPE),),
    "contiguous, then a device": (special("c", tarfile.CONTTYPE), special("n", tarfile.CHRTYPE)),
    "twice": (("x", b"1"), ("x", b"2")),
    "twice, spelled otherwise": (("d/x", b"1"), ("./d//x", b"2")),
    "twice, as a link": (("x", b"1"), ("y", b"2"), link("y", "x", HARD)),
    "a file and a folder": (("x", b"1"), ("x/y", b"2")),
    "a folder and a file": (("x/y", b"1"), ("x", b"2")),
    "deep": (("/".join("a" * 400), b"x"),),
}


@pytest.mark.parametrize("compression", ["", "gz"])
@pytest.mark.parametrize("name", TARS)
def test_malicious_tar(tmp_path, name, compression):
    path = tar_with(tmp_path / "evil.tar", *TARS[name], mode=f"w:{compression}")
    check_refused(path)


ZIPS: dict[str, tuple] = {
    "absolute": (("/tmp/evil", "x"),),
    "parent": (("../evil", "x"),),
    "parent after a good one": (("good", "x"), ("a/../../evil", "x")),
    "parent of windows": (("..\\..\\evil", "x"),),
    "drive": (("C:\\evil", "x"),),
    "share": (("\\\\host\\share\\evil", "x"),),
    "symbolic link outside": (zip_link("x", "/etc/passwd"),),
    "symbolic link to a parent": (zip_link("d/x", "../../evil"),),
    "symbolic link, then written": (zip_link("d", ".."), ("d/evil", "x")),
    "symbolic link to itself": (zip_link("x", "x"),),
    "link to a later file": (zip_link("x", "y"), ("y", "y")),
    "link of a long name": (("x", "x"), zip_link("y", "./" * 100_000 + "z")),
    "link that is no text": (zip_link("x", b"\xff\xfe\0"),),
    "pipe": (zip_special("pipe", stat.S_IFIFO),),
    "device": (zip_special("device", stat.S_IFCHR),),
    "socket": (zip_special("socket", stat.S_IFSOCK),),
    "twice": (("x", "1"), ("x", "2")),
    "twice, spelled otherwise": (("d/x", "1"), ("d/./x", "2")),
    "a file and a folder": (("x", "1"), ("x/y", "2")),
    "the folder itself": ((".", "x"),),
    "deep": (("/".join("a" * 400), "x"),),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ZIPS)
def test_malicious_zip(tmp_path, name):
    check_refused(zip_with(tmp_path / "evil.zip", *ZIPS[name]))


def check_refused(archive: Path, error: type[Exception] = DataError, match: str = "") -> None:
    """One sentence of ours with the archive's name, in no time, and nothing beside the folder."""
    box = archive.parent / "a" / "b"
    before = set(archive.parent.iterdir())
    start = time.monotonic()
    with pytest.raises(error, match=match) as caught:
        extract(archive, box / "out")
    assert time.monotonic() - start < 30
    assert str(archive) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    check_only_inside(archive, before)


def check_only_inside(archive: Path, before: set[Path]) -> None:
    out = archive.parent / "a" / "b" / "out"
    there = {path for path in archive.parent.rglob("*") if out not in (path, *path.parents)}
    assert there <= {*before, out.parent, out.parent.parent}
    assert not Path("/tmp/evil").exists()
    assert all(path.is_file() or path.is_dir() for path in out.rglob("*"))
    assert not any(path.is_symlink() for path in out.rglob("*"))


# --- sizes ----------------------------------------------------------------------------------------


def zeros(n: int) -> bytes:
    return bytes(-(-n // 512) * 512)


LONG: dict[str, Callable[[int], tuple[bytes, ...]]] = {
    "long name": lambda n: (header("././@LongLink", n, tarfile.GNUTYPE_LONGNAME), zeros(n)),
    "long link": lambda n: (header("././@LongLink", n, tarfile.GNUTYPE_LONGLINK), zeros(n)),
    "pax": lambda n: (header("pax", n, tarfile.XHDTYPE), zeros(n)),
    "global pax": lambda n: (header("pax", n, tarfile.XGLTYPE), zeros(n)),
    "solaris pax": lambda n: (header("pax", n, tarfile.SOLARIS_XHDTYPE), zeros(n)),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", LONG)
def test_a_header_that_unpacks_to_much(tmp_path, kind, first):
    """Two hundred kilobytes whose header alone unpacks to 200 MB: refused before it is read."""
    before = () if first else (header("x", 1), zeros(1))
    path = tgz(tmp_path / "evil.tgz", *before, *LONG[kind](200 << 20))
    tracemalloc.start()
    try:
        check_refused(path, match="larger than any header")
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_a_header_that_claims_much(tmp_path):
    for size in (8 * GB - 1, 10**15):
        info = tarfile.TarInfo("x")
        info.size = size
        for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            path = tmp_path / "evil.tar"
            path.write_bytes(info.tobuf(format) + bytes(10_240))
            check_refused(path, match="would become more than")


def test_many_headers_without_a_member(tmp_path):
    """Endless headers of a sparse file, of which each is small."""
    start = bytearray(header("x", 0, tarfile.GNUTYPE_SPARSE))
    start[482] = 1  # more of its header follows
    start[148:156] = b" " * 8
    start[148:156] = b"%06o\0 " % sum(start)
    more = bytearray(b"00000000001\0" * 42 + bytes(8))
    more[504] = 1
    check_refused(tgz(tmp_path / "a.tgz", bytes(start), bytes(more) * 200_000), match="header")
    pax = header("pax", 11, tarfile.XHDTYPE) + b"11 path=xy\n" + bytes(501)
    check_refused(tgz(tmp_path / "b.tgz", pax * 100_000))


@pytest.mark.slow
def test_bombs(tmp_path):
    zero = bytes(300 << 20)
    for archive in (
        tgz(tmp_path / "bomb.tgz", header("x", len(zero)), zero, bytes(1024)),
        zip_with(tmp_path / "bomb.zip", ("x", zero)),
        zip_with(tmp_path / "many.zip", *((f"{i}", zero[: 10 << 20]) for i in range(31))),
    ):
        check_refused(archive, match="would become more than")


@pytest.mark.slow
@pytest.mark.parametrize("opened", [bz2.open, lzma.open])
def test_bombs_of_other_compressions(tmp_path, opened):
    archive = tmp_path / "bomb"
    with opened(archive, "wb") as file:
        file.write(header("x", 300 << 20) + bytes(300 << 20))
    check_refused(archive, match="would become more than")


@pytest.mark.slow
def test_a_tail_that_unpacks_to_much(tmp_path):
    """Behind the end of the archive, where nobody looks."""
    path = tgz(tmp_path / "evil.tgz", header("x", 1), zeros(1), bytes(1024), bytes(300 << 20))
    check_refused(path, match="would become more than")


def test_entries_of_a_zip_that_share_their_bytes(tmp_path):
    """A bomb of overlapping entries: a kernel that each of the names refers to."""
    path = zip_with(tmp_path / "evil.zip", ("0", bytes(20 << 20)))
    content = path.read_bytes()
    at = content.rfind(b"PK\x01\x02")
    end = content.rfind(b"PK\x05\x06")
    entries = b"".join(
        content[at : at + 46] + b"%05d" % i + content[at + 47 : end] for i in range(1000)
    )
    entries = entries.replace(content[at : at + 46], _with_name_of(content[at : at + 46], 5))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, len(entries), at, 0)
    path.write_bytes(content[:at] + entries + tail)
    check_refused(path, match="would become more than")


def _with_name_of(entry: bytes, length: int) -> bytes:
    return entry[:28] + struct.pack("<H", length) + entry[30:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_sixty_thousand_members(tmp_path, kind):
    if kind == "zip":
        path = zip_with(tmp_path / "evil.zip", *((f"{i}", "") for i in range(60_000)))
    else:
        mode = "w" if kind == "tar" else "w:gz"
        path = tar_with(tmp_path / "evil", *((f"{i}", b"") for i in range(60_000)), mode=mode)
    check_refused(path, match="more than .* members")


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    for archive in (
        tar_with(tmp_path / "a.tar", ("x", bytes(2000))),
        zip_with(tmp_path / "a.zip", ("x", bytes(2000))),
    ):
        check_refused(archive, UnpackError, "are free")


# --- names that a file system takes for one -------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [("A", "a"), ("Train/x", "train/y"), ("é", "e\N{COMBINING ACUTE ACCENT}"), ("D/x", "d")],
)
def test_names_that_a_file_system_takes_for_one(tmp_path, monkeypatch, names):
    for kind in ("tar", "zip"):
        with_all = [(name, b"x") for name in names]
        path = tmp_path / f"a.{kind}"
        tar_with(path, *with_all) if kind == "tar" else zip_with(path, *with_all)
        monkeypatch.setattr(archives, "_folds_case", lambda folder: True)
        check_refused(path, match=r"comes twice \(also as ")


def test_names_that_linux_tells_apart(tmp_path):
    if archives._folds_case(tmp_path):
        pytest.skip("a file system that does not tell case")
    extract(tar_with(tmp_path / "a.tar", ("A", b"1"), ("a", b"2")), tmp_path / "out")
    assert [(tmp_path / "out" / name).read_text() for name in "Aa"] == ["1", "2"]


# --- damage ---------------------------------------------------------------------------------------


def good_archives(folder: Path) -> list[Path]:
    noise = bytes(range(256)) * 20
    members = (("d/x", noise), ("y", b"y" * 700), ("z", b""))
    return [
        zip_with(folder / "a.zip", *members),
        *(
            tar_with(folder / f"a.{mode or 'tar'}", *members, mode=f"w:{mode}")
            for mode in ("", "gz", "bz2", "xz")
        ),
    ]


def test_an_archive_cut_anywhere_is_noticed(tmp_path):
    for archive in good_archives(tmp_path):
        content = archive.read_bytes()
        # A tar archive is padded with zeros to 10,240 bytes; one block of them says that it ends.
        end = len(content) if archive.suffix != ".tar" else len(content.rstrip(b"\0")) + 300
        for length in {*range(0, end, max(1, end // 60)), end - 1}:
            archive.write_bytes(content[:length])
            with pytest.raises(DataError, match=r"neither a zip nor a tar|cannot be unpacked"):
                extract(archive, tmp_path / "out")


def test_a_damaged_byte_of_a_compressed_archive_is_noticed(tmp_path):
    """Also in the checksum at the end, which is only tested by who reads that far."""
    for archive in good_archives(tmp_path):
        content = archive.read_bytes()
        places = {
            ".tar": (),  # a tar archive has no checksum of its contents
            ".zip": (60, 500, len(content) - 10),
            # The first bytes are time, system and name; nothing depends on them.
            ".gz": (*range(16, len(content), 37), *range(len(content) - 8, len(content))),
            ".bz2": (*range(4, len(content), 37), *range(len(content) - 8, len(content) - 1)),
            ".xz": (*range(6, len(content), 37), *range(len(content) - 12, len(content))),
        }[archive.suffix]
        for at in places:
            archive.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
            with pytest.raises(DataError, match=archive.name):
                extract(archive, tmp_path / "out")


def test_a_damaged_header_is_no_end(tmp_path):
    """`tarfile` takes the first header that it cannot read for the end of the archive."""
    archive = tar_with(tmp_path / "a.tar", ("x", b"x"), ("y", b"y"), ("z", b"z"))
    content = archive.read_bytes()
    for damage in (bytes(512), b"\xff" * 512, content[1024:1100] + b"?" + content[1101:1536]):
        archive.write_bytes(content[:1024] + damage + content[1536:])
        check_refused(archive, match="a header is damaged, or something follows the end")


def test_two_archives_in_one(tmp_path):
    """Programs differ in which of them they see."""
    first = tar_with(tmp_path / "a.tar", ("x", b"x")).read_bytes()
    second = tar_with(tmp_path / "b.tar", ("y", b"y")).read_bytes()
    (tmp_path / "b.tar").unlink()
    (tmp_path / "a.tar").write_bytes(first + second)
    check_refused(tmp_path / "a.tar", match="something follows the end")


def test_a_zip_with_another_name_in_its_table(tmp_path):
    path = zip_with(tmp_path / "a.zip", ("good", "x"))
    check_refused(patched(path, b"PK\x01\x02", 46, b"evil"), match="differ")


def test_a_zip_with_a_wrong_size_in_its_table(tmp_path):
    for size in (0, 4, 100_000):
        path = zip_with(tmp_path / "a.zip", ("good", b"x" * 1000))
        patched(path, b"PK\x01\x02", 24, struct.pack("<L", size))
        check_refused(path, match="cannot be unpacked")


def test_a_zip_that_is_encrypted(tmp_path):
    path = patched(zip_with(tmp_path / "a.zip", ("x", "x")), b"PK\x01\x02", 8, b"\x01")
    check_refused(patched(path, b"PK\x03\x04", 6, b"\x01"), match="encrypted")


def test_a_zip_of_an_unknown_compression(tmp_path):
    path = patched(zip_with(tmp_path / "a.zip", ("x", "x")), b"PK\x01\x02", 10, b"\x61")
    check_refused(path, match="packed in a way")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(DataError, match="is no file"):
        extract(tmp_path / "a.zip", tmp_path / "out")


# --- fuzzing --------------------------------------------------------------------------------------


def unpack_or_our_error(archive: Path) -> None:
    before = set(archive.parent.iterdir())
    try:
        extract(archive, archive.parent / "a" / "b" / "out")
    except UserError as error:
        assert str(archive) in str(error)
    check_only_inside(archive, before)


@WITHIN
@given(content=st.binary(max_size=1500), mark=st.sampled_from(["", "PK\3\4", "BZh9", "\x1f\x8b"]))
def test_arbitrary_bytes(tmp_path_factory, content, mark):
    archive = tmp_path_factory.mktemp("fuzz") / "archive"
    archive.write_bytes(mark.encode("latin-1") + content)
    unpack_or_our_error(archive)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[bytes]:
    """Small archives of each kind, with folders and links."""
    folder = tmp_path_factory.mktemp("seeds")
    members = (("d/x", b"x" * 600), ("y", b"y"), link("d/s", "x"), link("h", "y", HARD))
    tar = [
        tar_with(folder / f"a{mode}", *members, mode=f"w:{mode}").read_bytes()
        for mode in ("", "gz", "bz2", "xz")
    ]
    long = tar_with(folder / "long", ("d/" + "n" * 150, b"x"), ("é" * 60, b"y")).read_bytes()
    zipped = zip_with(folder / "z", ("d/x", b"x" * 600), ("e/", ""), zip_link("d/s", "x"))
    return [*tar, long, zipped.read_bytes()]


@WITHIN
@given(data=st.data())
def test_mutated_archives(tmp_path_factory, seeds, data):
    content = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(content), 4000) - 1))
        content[at] = data.draw(st.integers(0, 255) | st.sampled_from(b"./\\\0-0127\xff"))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    archive = tmp_path_factory.mktemp("fuzz") / "archive"
    archive.write_bytes(content[:end])
    unpack_or_our_error(archive)


@WITHIN
@given(data=st.data())
def test_mutated_tar_with_right_checksums(tmp_path_factory, seeds, data):
    """What somebody made on purpose: every field of a header, with its checksum made right."""
    content = bytearray(seeds[0])
    for _ in range(data.draw(st.integers(1, 4))):
        start = 512 * data.draw(st.sampled_from([0, 3, 5, 6]))
        field = data.draw(st.sampled_from([(0, 100), (124, 12), (156, 1), (157, 100), (345, 155)]))
        value = data.draw(
            st.binary(max_size=field[1])
            | st.sampled_from([b"../evil", b"/tmp/evil", b"d/s", b"\x80\xff\xff", b"77777777777"])
        )[: field[1]]
        content[start + field[0] : start + field[0] + len(value)] = value
        content[start + 148 : start + 156] = b" " * 8
        total = sum(content[start : start + 512])
        content[start + 148 : start + 156] = b"%06o\0 " % total
    archive = tmp_path_factory.mktemp("fuzz") / "archive"
    archive.write_bytes(content)
    unpack_or_our_error(archive)
