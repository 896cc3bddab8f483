"""Damaged images are found before a run, in any format; whole ones are looked at just once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dassl.data import DataManager
from dassl.utils import DataError, UserError, read_image
from datasets.readers import image_checks
from datasets.readers.image_checks import NAME, ImageChecks, check_image
from datasets.readers.pictures import PictureReader
from tests.datasets import fixtures
from tests.datasets.build import build
from tests.datasets.helpers_folder import draw, load, make_cfg, make_split

KINDS = {  # name → how Pillow writes it; ll: without loss
    **{"a.jpg": {}, "prog.jpg": {"progressive": True}, "a.png": {}, "a.gif": {}, "a.bmp": {}},
    **{"a.webp": {}, "ll.webp": {"lossless": True}, "a.avif": {}, "a.jp2": {}, "a.qoi": {}},
    **{"a.tif": {}, "lzw.tif": {"compression": "tiff_lzw"}, "a.ppm": {}, "a.dib": {}, "a.sgi": {}},
    **{"a.pcx": {}, "a.tga": {}, "rle.tga": {"compression": "tga_rle"}},
}
DECODED = (".ppm", ".dib", ".sgi", ".pcx", ".tga", ".qoi")  # what does not say where it ends
COLOURS = np.random.RandomState(0).randint(0, 256, (90, 110, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("check", [check_image, PictureReader().check])
def test_files_that_were_cut_short(tmp_path, name, check, monkeypatch):
    path = tmp_path / name
    Image.fromarray(COLOURS).save(path, **KINDS[name])
    content = path.read_bytes()
    for share in (0.98, 0.6, 0.3):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=rf"{name} cannot be read"):
            check(str(path))
    path.write_bytes(content)
    if not name.endswith(DECODED):
        monkeypatch.setattr(Image.Image, "load", None)  # nothing that is whole is decoded
    check(str(path))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_nothing_is_refused_that_can_be_read(tmp_path, name, data):
    path = tmp_path / name
    Image.fromarray(COLOURS[:12, :10]).save(path, **KINDS[name])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    path.write_bytes(content)
    try:
        check_image(str(path))
    except DataError:
        with pytest.raises(DataError):
            read_image(path)


def test_the_first_frame_is_enough(tmp_path):
    frames = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content[: int(0.9 * len(content))])
    check_image(str(tmp_path / "a.gif"))
    read_image(tmp_path / "a.gif")


# --- remembering ----------------------------------------------------------------------------------


@pytest.fixture
def some(tmp_path, monkeypatch) -> tuple[list[str], list[str]]:
    """Returns the paths of six images, and those that are looked at from now on."""
    monkeypatch.setattr(image_checks, "WORTH_KEEPING", 5)
    for i in range(6):
        draw(tmp_path / f"{i}.png", i)
    return [str(tmp_path / f"{i}.png") for i in range(6)], []


def looked(some: tuple[list[str], list[str]], folder: Path, identity: str = "") -> list[str]:
    paths, seen = some
    seen.clear()

    def check(path: str) -> None:
        seen.append(Path(path).stem)
        check_image(path)

    assert ImageChecks(check, folder, identity).problems(paths) == [""] * len(paths)
    return sorted(seen)


def test_whole_images_are_looked_at_once(some, tmp_path):
    assert looked(some, tmp_path) == list("012345")
    assert looked(some, tmp_path) == []
    assert looked(some, tmp_path, "another reader") == list("012345")
    assert looked(some, tmp_path) == looked(some, tmp_path, "another reader") == []


def replaced(path: Path) -> None:
    draw(path.with_name("new.png"), 99)
    path.with_name("new.png").replace(path)


def in_place(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", [replaced, in_place])
@pytest.mark.parametrize("old_times", [False, True])
def test_an_image_that_was_changed_is_looked_at_again(some, tmp_path, change, old_times):
    """Also one of the same size with the times of before, as backups are unpacked with."""
    looked(some, tmp_path)
    path = tmp_path / "3.png"
    before = path.stat()
    change(path)
    if old_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen: list[str] = []
    ImageChecks(lambda name: seen.append(Path(name).stem), tmp_path).problems(some[0])
    assert seen == ["3"]


def test_damaged_images_are_not_remembered(some, tmp_path):
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:-40])
    for _ in range(2):
        found = ImageChecks(check_image, tmp_path).problems(some[0])
        assert [i for i, problem in enumerate(found) if problem] == [2]


@pytest.mark.parametrize("content", ["", "[]", '{"whole": 3}', '{"whole": "xyz"}', "[" * 9999])
def test_a_damaged_memory_is_none(some, tmp_path, content):
    (tmp_path / NAME).write_text(content)
    assert looked(some, tmp_path) == list("012345")
    assert looked(some, tmp_path) == []


def test_few_images_leave_no_file(tmp_path):
    draw(tmp_path / "a.png")
    ImageChecks(check_image, tmp_path).problems([str(tmp_path / "a.png")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# --- before a run ---------------------------------------------------------------------------------


def spoil(path: str) -> None:
    whole = Path(path).read_bytes()
    Path(path).unlink()  # a link
    Path(path).write_bytes(whole[: len(whole) // 2])


def test_a_benchmark_is_looked_at_before_a_run(tmp_path):
    fixtures.make("EuroSAT", tmp_path, per_class=3)
    manager = DataManager(make_cfg(NAME="EuroSAT", ROOT=str(tmp_path), NUM_SHOTS=1))
    manager.check_images(training=True)
    used = {item.impath for item in manager.dataset.train_x}
    unused = next(i.impath for i in build("EuroSAT", tmp_path).train_x if i.impath not in used)
    spoil(unused)  # is none of the few shots
    manager.check_images(training=True)
    spoil(min(used))
    manager.check_images(training=False)
    with pytest.raises(DataError, match=r"EuroSAT: image .* cannot be read.* unpack the dataset"):
        manager.check_images(training=True)
    spoil(manager.dataset.test[0].impath)
    with pytest.raises(UserError, match=r"cannot be read"):
        manager.check_images(training=False)


def test_own_images_are_looked_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(image_checks, "WORTH_KEEPING", 5)
    make_split(tmp_path / "birds", train=3, test=2)
    seen: list[str] = []
    monkeypatch.setattr(PictureReader, "check", lambda self, path: seen.append(path))
    first = load(tmp_path / "birds")
    assert len(seen) == 20 and load(tmp_path / "birds").split_digest == first.split_digest
    assert len(seen) == 20
    load(tmp_path / "birds", BACKGROUND="black")  # is another reader
    assert len(seen) == 40


def test_training_on_data_that_are_for_tests_alone_is_said(tmp_path, capsys):
    fixtures.make("ImageNetA", tmp_path, per_class=1)
    manager = DataManager(make_cfg(NAME="ImageNetA", ROOT=str(tmp_path)))
    manager.check_images(training=False)
    assert "are its training images" not in capsys.readouterr().out
    manager.check_images(training=True)
    said = capsys.readouterr().out
    assert "200 of the 200 test images of ImageNetA are its training images" in said
