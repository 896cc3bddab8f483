"""Pictures as people have them: odd ones, broken ones, odd names, and where the answers go."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import predict
from dassl.utils import read_image
from dassl.utils.cli import run_cli
from prompts import Predictor
from prompts.pictures import Reader
from tests.prompts.runs import pictures

TURNED = 6  # EXIF's orientation of a phone held upright


def command(*arguments: object) -> int:
    parser = predict.build_parser()
    return run_cli(lambda: predict.main(parser.parse_args([str(a) for a in arguments])))


def gradient(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Dark at the left and bright at the right."""
    levels = np.tile(np.linspace(0, 255, size[0]), (size[1], 1)).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    """Pictures that all show `gradient`, but for the tiny one."""
    folder = tmp_path / "odd"
    folder.mkdir()
    deep = np.asarray(gradient("L")).astype(np.uint16) * 257
    moving = {"save_all": True, "append_images": [gradient("L").rotate(180)]}
    turned, exif = gradient().transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[274] = TURNED
    kinds = {
        "plain.png": (gradient(), {}),
        "moving.gif": (gradient("L"), moving),
        "deep.png": (Image.fromarray(deep), {}),
        "cmyk.jpg": (gradient("CMYK"), {"quality": 95}),
        "turned.png": (turned, {"exif": exif}),
        "clear.png": (gradient("RGBA"), {}),
        "dot.png": (Image.new("RGB", (1, 1), "red"), {}),
        "large.png": (gradient(size=(3000, 2000)), {}),
    }
    for name, (image, more) in kinds.items():
        image.save(folder / name, **more)
    return {name: folder / name for name in kinds}


def test_odd_pictures_show_what_they_are_meant_to(coop: Path, odd: dict[str, Path]):
    predictor = Predictor.load(coop)
    alike = [name for name in odd if name not in ("dot.png", "large.png")]
    found = predictor.probabilities([odd[name] for name in alike])
    for name, row in zip(alike, found):
        assert torch.allclose(row, found[0], atol=0.05), name
    assert predictor(list(odd.values()), top=1)
    opened = predictor.probabilities(Image.open(odd["turned.png"]))
    assert torch.equal(opened, predictor.probabilities(odd["turned.png"]))


def test_a_run_s_own_pictures_are_read_as_its_test_read_them(coop: Path, data: Path, tmp_path):
    """A benchmark knows no orientation; the same picture elsewhere is somebody's own."""
    exif = Image.Exif()
    exif[274] = TURNED
    theirs, own = data / "eurosat/2750/turned.png", tmp_path / "turned.png"
    gradient().save(theirs, exif=exif)
    shutil.copy(theirs, own)
    reader = Reader.of(Predictor.load(coop).run.cfg)
    try:
        assert np.array_equal(reader(str(theirs)), read_image(theirs))
        assert np.array_equal(reader(str(own)), ImageOps.exif_transpose(Image.open(own)))
    finally:
        theirs.unlink()


def broken(folder: Path, good: str) -> list[Path]:
    """Writes files that are no pictures: by their first bytes, by their end, within."""
    text, cut, zeros = folder / "text.png", folder / "cut.jpg", folder / "zeros.png"
    text.write_text("no picture at all")
    cut.write_bytes(Path(good).read_bytes()[:-300])
    image = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (90, 90), np.uint8)).save(image, "PNG")
    content = bytearray(image.getvalue())
    content[2000:4000] = bytes(2000)  # begins and ends as it should
    zeros.write_bytes(content)
    return [cut, text, zeros]


def test_broken_pictures_are_all_told_before_anything_is_computed(
    coop: Path, data: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    bad = broken(tmp_path, pictures(data)[0])
    shutil.copy(pictures(data)[0], tmp_path / "good.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "scores", lambda *_: pytest.fail("computed"))
        assert command(coop, tmp_path) == 2
    said = capsys.readouterr()
    assert "2 pictures: " in said.err and "--skip-broken" in said.err and not said.out
    assert all(path.name in said.err for path in bad[:2])
    for path in bad[:2]:
        path.unlink()
    assert command(coop, tmp_path) == 2  # the third shows itself when it is decoded
    said = capsys.readouterr()
    assert bad[2].name in said.err and "--skip-broken" in said.err and not said.out


def test_broken_pictures_can_be_left_out(coop: Path, data: Path, tmp_path: Path, capsys):
    bad = broken(tmp_path, pictures(data)[0])
    for i, path in enumerate(pictures(data)[:3]):
        shutil.copy(path, tmp_path / f"{'abz'[i]}.jpg")
    flags = ("--format", "jsonl", "--batch-size", 2, "--skip-broken")
    assert command(coop, tmp_path, *flags) == 0
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [Path(row["picture"]).name for row in rows] == ["a.jpg", "b.jpg", "z.jpg"]
    expected = Predictor.load(coop)([tmp_path / f"{c}.jpg" for c in "abz"])
    for row, guesses in zip(rows, expected):
        assert [c["name"] for c in row["classes"]] == [name for name, _ in guesses]
    assert [line.partition(": ")[0] for line in said.err.splitlines()] == ["left out"] * len(bad)
    for path in tmp_path.glob("?.jpg"):
        path.unlink()
    assert command(coop, tmp_path, "--skip-broken") == 2
    assert "none of 3 pictures can be read" in capsys.readouterr().err


# --- names ----------------------------------------------------------------------------------------

NAMES = ('a "quoted", name.jpg', "two\nlines.jpg", "höhe 山.jpg", "=1+1.jpg", " blank.jpg")


def test_odd_names_come_back(coop: Path, data: Path, tmp_path: Path, capsys):
    for name in NAMES:
        shutil.copy(pictures(data)[0], tmp_path / name)
    names = sorted(str(tmp_path / name) for name in NAMES)
    flags = ("--top", 1, "--classes", 'a "b", c,d\'e,山', "--format")
    assert command(coop, tmp_path, *flags, "jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["picture"] for line in lines] == names
    assert command(coop, tmp_path, *flags, "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["picture"] for row in rows] == names
    assert command(coop, tmp_path, *flags, "table") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(names), "a line each"


def test_a_name_that_is_no_utf8(coop: Path, data: Path, tmp_path: Path, capsys):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")
    shutil.copy(pictures(data)[0], name)
    for form in ("table", "csv", "jsonl"):
        out = tmp_path / f"out.{form}"
        assert command(coop, name, "--format", form, "--output", out) == 0
        assert "udcff" in out.read_text(encoding="utf-8")
    assert json.loads(out.read_text())["picture"] == name


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\0"])
def test_standard_input(
    between: bytes, coop: Path, data: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    names = [b"-x.jpg", b"\xff.jpg", *([b"two\nlines.jpg"] if between == b"\0" else [])]
    for name in names:
        shutil.copy(pictures(data)[0], os.fsdecode(name))
    given = io.TextIOWrapper(io.BytesIO(between.join([*names, b""])))
    monkeypatch.setattr("sys.stdin", given)
    assert command(coop, "-", "--format", "jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [os.fsencode(json.loads(line)["picture"]) for line in lines] == names


def test_a_name_that_looks_like_an_option(
    coop: Path, data: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(pictures(data)[0], "-x.jpg")
    assert command(coop, "./-x.jpg") == 0
    monkeypatch.setattr("sys.argv", ["predict.py", str(coop), "-x.jpg"])
    with pytest.raises(SystemExit) as stop:
        command(*sys.argv[1:])
    assert stop.value.code == 2
    assert "the file -x.jpg is written ./-x.jpg" in capsys.readouterr().err


def test_classes_in_a_file(coop: Path, data: Path, tmp_path: Path, capsys):
    file, picture = tmp_path / "classes.txt", pictures(data)[0]
    file.write_text("cat, sitting\n\ndog\n")
    for flags in (("--classes", f"@{file}"), ("--classes-file", file)):
        assert command(coop, picture, *flags, "--format", "jsonl") == 0
        found = json.loads(capsys.readouterr().out)["classes"]
        assert {c["name"] for c in found} == {"cat, sitting", "dog"}
    with pytest.raises(SystemExit):
        command(coop, picture, "--classes", "a", "--classes-file", file)


# --- where answers go -----------------------------------------------------------------------------


def test_an_output_is_looked_at_before_anything_is_computed(
    coop: Path, data: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    there, picture = tmp_path / "there.csv", pictures(data)[0]
    there.write_text("precious")
    cases = {
        there: "is there: choose another name, or --overwrite",
        tmp_path: "is a folder: give the name of a file",
        there / "below.csv": "is no folder that takes files",
        Path(os.devnull): "is no plain file",
    }
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "load", lambda *_, **__: pytest.fail("computed"))
        for out, expected in cases.items():
            assert command(coop, picture, "--output", out) == 2
            said = capsys.readouterr().err
            assert expected in said and len(said.splitlines()) == 1
    assert there.read_text() == "precious"
    assert command(coop, picture, "--output", there, "--overwrite") == 0
    assert "probability" in there.read_text()


def test_a_full_disk_leaves_nothing_half_written(coop: Path, data: Path, tmp_path: Path, capsys):
    resource = pytest.importorskip("resource")
    out = tmp_path / "guesses.csv"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        assert command(coop, data / "eurosat", "--format", "csv", "--output", out) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "larger than is allowed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_pipe_is_told(coop: Path, data: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert command(coop, pictures(data)[0]) == 2
    assert "takes nothing more" in capsys.readouterr().err
