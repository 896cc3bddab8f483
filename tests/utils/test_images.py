"""Images that mean harm, and images that are only damaged: our own error, no hang, no program."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dassl.utils import DataError, MissingFileError, open_image, read_image

WITHIN = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def picture(mode: str = "RGB", size: tuple[int, int] = (20, 13)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def saved(name: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    picture(mode).save(out, name, **options)
    return out.getvalue()


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """Builds a PNG of one bit a pixel whose header claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


Image.init()
KINDS: dict[str, tuple] = {
    "JPEG": ("JPEG", "RGB"),
    "JPEG grey": ("JPEG", "L"),
    "JPEG for print": ("JPEG", "CMYK"),
    "PNG": ("PNG", "RGB"),
    "PNG palette": ("PNG", "P"),
    "PNG with alpha": ("PNG", "RGBA"),
    "GIF": ("GIF", "P"),
    "BMP": ("BMP", "RGB"),
    "TIFF": ("TIFF", "RGB"),
    "WEBP": ("WEBP", "RGB"),
    "PPM": ("PPM", "RGB"),
    "PGM": ("PPM", "L"),
    "JPEG2000": ("JPEG2000", "RGB"),
    "AVIF": ("AVIF", "RGB"),
    "QOI": ("QOI", "RGB"),
    "PCX": ("PCX", "RGB"),
    "SGI": ("SGI", "RGB"),
    "TGA": ("TGA", "RGB"),
    "DIB": ("DIB", "RGB"),
}
# A Pillow may be built without some of them, and an old one cannot write all.
SAMPLES = {kind: saved(*how) for kind, how in KINDS.items() if how[0] in Image.SAVE}
SAMPLES["TIFF packed"] = saved("TIFF", compression="tiff_lzw")


@pytest.mark.parametrize("kind", SAMPLES)
def test_formats_that_we_mean(tmp_path, kind):
    """The name does not matter, and the pixels are those of plain Pillow, bit for bit."""
    path = tmp_path / "image.png"
    path.write_bytes(SAMPLES[kind])
    with Image.open(path) as image:
        expected = image.convert("RGB")
    assert read_image(path).tobytes() == expected.tobytes()
    with open_image(path) as image:
        assert image.size == expected.size


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
0 0 20 20 rectfill
showpage
%%EOF
"""
NOT_MEANT = {
    "EPS by hand": EPS,
    "EPS behind a DOS header": struct.pack("<IIIIIIIH", 0xC6D3D0C5, 32, len(EPS), 0, 0, 0, 0, 0)
    + b"\0\0"
    + EPS,
    **{
        name: saved(name, mode)
        for name, mode in (
            *(("EPS", "RGB"), ("IM", "RGB"), ("SPIDER", "F"), ("MSP", "1"), ("XBM", "1")),
            *(("BLP", "P"), ("DDS", "RGB"), ("ICO", "RGB"), ("PDF", "RGB")),
        )
        if name in Image.SAVE
    },
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "GRIB": b"GRIB\0\0\0\1" + bytes(100),
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(100),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "PSD": b"8BPS\0\1" + bytes(100),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "text": b"hello",
    "web page": b"<!DOCTYPE html><html>404</html>",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", NOT_MEANT)
def test_other_formats_are_refused(tmp_path, monkeypatch, kind):
    """An EPS called .png must never reach Ghostscript."""

    def started(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a program was started: {args}")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)
    path = tmp_path / "image.png"
    path.write_bytes(NOT_MEANT[kind])
    with pytest.raises(
        DataError, match=r"image\.png cannot be read: it is (none of JPEG, PNG|empty|a web page)"
    ):
        read_image(path)


@pytest.mark.parametrize("width, height", [(1, 1_000_000), (1_000_000, 1), (2, 100_000), (9, 5000)])
def test_absurd_shapes(tmp_path, width, height):
    """Resizing the short side to 224 pixels would ask for up to 150 GB."""
    path = tmp_path / "thin.png"
    path.write_bytes(png(width, height, bytes((1 + (width + 7) // 8) * height)))
    assert path.stat().st_size < 3000
    with pytest.raises(DataError, match=rf"thin\.png is {width} x {height} pixels"):
        read_image(path)


def test_long_but_sane_shapes(tmp_path):
    for size in ((1, 1), (1, 500), (2000, 20)):
        picture(size=size).save(tmp_path / "long.png")
        assert read_image(tmp_path / "long.png").size == size


@pytest.mark.parametrize("side", [20_000, 60_000, 2**31 - 1])
def test_decompression_bombs(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, bytes(1000)))
    with pytest.raises(DataError, match=r"bomb\.png cannot be read"):
        read_image(path)


def test_text_bomb(tmp_path):
    """A compressed comment that unpacks to 100 MB."""
    path, content = tmp_path / "text.png", b"note\0\0" + zlib.compress(bytes(100 << 20))
    crc = struct.pack(">I", zlib.crc32(b"zTXt" + content))
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + crc
    path.write_bytes(SAMPLES["PNG"][:33] + chunk + SAMPLES["PNG"][33:])
    with pytest.raises(DataError, match=r"text\.png cannot be read"):
        read_image(path)


# --- what is no file ------------------------------------------------------------------------------


def within_seconds(function, *args):
    """Returns what a call raises, or fails the test where it hangs."""
    raised = []

    def call() -> None:
        try:
            function(*args)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it hangs"
    return raised[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
@pytest.mark.parametrize("link", [False, True])
def test_pipe_does_not_hang(tmp_path, link):
    path = tmp_path / "pipe.jpg"
    os.mkfifo(path)
    if link:
        (tmp_path / "link.jpg").symlink_to(path)
        path = tmp_path / "link.jpg"
    error = within_seconds(read_image, path)
    assert isinstance(error, DataError) and "it is a pipe, not a file" in str(error)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="a system without such sockets")
def test_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        error = within_seconds(read_image, "socket.jpg")
    assert isinstance(error, DataError) and "it is a socket, not a file" in str(error)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "/dev/tty"])
def test_device(tmp_path, target):
    if not Path(target).exists():
        pytest.skip(f"no {target} here")
    (tmp_path / "device.jpg").symlink_to(target)
    error = within_seconds(read_image, tmp_path / "device.jpg")
    assert isinstance(error, DataError) and "cannot be read" in str(error)


def test_folder_and_missing(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match="it is a folder, not a file"):
        read_image(tmp_path / "folder.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "none.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("none.jpg", "broken.jpg"):
        with pytest.raises(MissingFileError, match=f"{name} does not exist"):
            read_image(tmp_path / name)
    for name in ("loop.jpg", "x" * 300 + ".jpg", "with\0nul.jpg", "file.jpg/inner.jpg"):
        (tmp_path / "file.jpg").write_bytes(b"")
        with pytest.raises(DataError, match="cannot be read"):
            read_image(tmp_path / name)


# --- damage ---------------------------------------------------------------------------------------


def read_or_our_error(path: Path) -> None:
    start = time.monotonic()
    try:
        image = read_image(path)
        assert image.mode == "RGB" and min(image.size) > 0
    except DataError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1
    assert time.monotonic() - start < 20


@WITHIN
@given(st.binary(max_size=300))
def test_arbitrary_bytes(tmp_path, content):
    path = tmp_path / "fuzz.png"
    path.write_bytes(content)
    read_or_our_error(path)


@pytest.mark.parametrize("kind", SAMPLES)
@WITHIN
@given(data=st.data())
def test_mutated_files(tmp_path, kind, data):
    content = bytearray(SAMPLES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(40, len(content) - 1)))
        content[at] = data.draw(st.integers(0, 255) | st.sampled_from([0, 1, 127, 128, 255]))
    cut = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    path = tmp_path / "fuzz.png"
    path.write_bytes(content[:cut])
    read_or_our_error(path)


def test_errors_of_the_user_pass(tmp_path):
    picture().save(tmp_path / "a.png")
    with pytest.raises(DataError, match="of the block"), open_image(tmp_path / "a.png"):
        raise DataError("of the block")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (bytes(100), "nothing but zeros"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "type git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page or a drawing"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a web page or a drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "it is HEIC.* convert it to JPEG"),
        (b"II*\0\x08\0\0\0\0\0", "none of JPEG.* or of a rare kind of them; convert it"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, words):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jpg cannot be read: .*{words}"):
        read_image(tmp_path / "a.jpg")
