"""Unpacking: what comes out; tests/faults/test_malicious_archives.py has those that mean harm."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile

import pytest

from dassl.utils import DataError, archives
from dassl.utils.archives import UnpackError, extract
from datasets.manage.catalog import catalog


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


def zip_link(name, target):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


def test_links_to_files_that_come_before_are_other_names_of_them(tmp_path):
    for archive in (
        tar_with(
            tmp_path / "a.tar",
            *(("d/x", b"x"), link("d/s", "x"), link("t", "d/x"), link("u", "d/../d/x")),
            *(link("h", "d/x", tarfile.LNKTYPE), link("h2", "h", tarfile.LNKTYPE)),
        ),
        zip_with(tmp_path / "a.zip", ("d/x", "x"), zip_link("d/s", "x"), zip_link("t", "./d/x")),
    ):
        out = tmp_path / f"out-{archive.suffix[1:]}"
        extract(archive, out)
        assert {"d/s", "d/x", "t"} <= set(files_below(out))
        assert not any(path.is_symlink() for path in out.rglob("*"))
        assert {(out / name).read_text() for name in files_below(out)} == {"x"}


def test_links_are_copies_where_the_file_system_has_none(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    extract(tar_with(tmp_path / "a.tar", ("x", b"x"), link("s", "x")), tmp_path / "out")
    assert (tmp_path / "out" / "s").read_text() == "x"


def test_unpacking_again_replaces_files_but_not_through_links(tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    mine.write_text("mine")
    (out / "x").symlink_to(mine)
    archive = tar_with(tmp_path / "a.tar", ("x", b"new"))
    for _ in range(2):
        extract(archive, out)
        assert (out / "x").read_text() == "new" and mine.read_text() == "mine"


def test_neither_permissions_nor_owners_are_taken_over(tmp_path):
    info = tarfile.TarInfo("x")
    info.mode, info.uid, info.mtime = 0o6777, 12345, 2**33
    extract(tar_with(tmp_path / "a.tar", info), tmp_path / "out")
    state = (tmp_path / "out" / "x").stat()
    assert state.st_uid == tmp_path.stat().st_uid and not state.st_mode & 0o7111


def test_separators_of_windows(tmp_path):
    for archive in (
        tar_with(tmp_path / "a.tar", ("d\\x", b"x")),
        zip_with(tmp_path / "a.zip", ("e\\", ""), ("d\\x", "x")),
    ):
        extract(archive, tmp_path / "out")
        assert files_below(tmp_path / "out") == ["d/x"]
    assert (tmp_path / "out" / "e").is_dir()


def test_names_in_any_letters(tmp_path):
    names = ["日本/猫.png", "Überraschung ß.png", "a b'c\"d[0].png"]
    for archive in (
        tar_with(tmp_path / "a.tar", *((name, b"x") for name in names)),
        zip_with(tmp_path / "a.zip", *((name, b"x") for name in names)),
    ):
        extract(archive, tmp_path / archive.suffix[1:])
        assert files_below(tmp_path / archive.suffix[1:]) == sorted(names)


def test_every_archive_of_the_catalog_may_have_its_images():
    for entry in catalog().values():
        images = sum(size or 0 for size in entry.sizes)
        for size in (file.size for source in entry.sources for file in source.files if file.places):
            if size and size > 50_000_000:  # images, not annotations
                assert archives.FREE_MEMBERS + size // archives.BYTES_A_MEMBER > images, entry.name


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


@pytest.mark.parametrize("packed", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_members_that_only_unpack_as_a_whole(tmp_path, packed):
    """Their modules in Python put some bytes that become gigabytes into memory at once."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", packed) as file:
        file.writestr("good", "x")
    with pytest.raises(DataError, match="good is packed in a way that zip files rarely are"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


OF_WINDOWS = ["CON", "nul.jpg", "d/aux", "COM1.tar.gz", "lpt9 .txt", "a.", "b ", "d. /x", "a/c:x"]


@pytest.mark.parametrize("name", OF_WINDOWS)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_are_others_on_windows(tmp_path, monkeypatch, name, kind):
    path = tmp_path / f"a.{kind}"
    tar_with(path, (name, b"x")) if kind == "tar" else zip_with(path, (name, "x"))
    extract(path, tmp_path / "elsewhere")
    monkeypatch.setattr(archives, "_ON_WINDOWS", True)
    with pytest.raises(DataError, match=r"on Windows|would leave"):
        extract(path, tmp_path / "out")


def test_names_that_windows_knows_too(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_ON_WINDOWS", True)
    names = ["console", "com10", "nullify.jpg", ".hidden", "a..b", "d.e/f g", "auxiliary", "com"]
    extract(zip_with(tmp_path / "a.zip", *((n, "x") for n in names)), tmp_path / "out")
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == len(names)
