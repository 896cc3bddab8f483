"""Pictures that Pillow alone would show as others: odd depths, unused alpha, colour profiles."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from dassl.utils import DataError
from datasets.readers.pictures import PictureReader
from tests.datasets.readers.test_pictures import COLOURS, pixels, read, with_alpha


def png(path, depth: int, kind: int, rows: list[bytes], **chunks: bytes) -> object:
    """Writes a PNG of two columns as it may be, but as Pillow does not write it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    head = struct.pack(">IIBBBBB", 2, len(rows), depth, kind, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + row for row in rows))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    content += b"".join(chunk(name.encode(), value) for name, value in chunks.items())
    path.write_bytes(content + chunk(b"IDAT", lines) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("depth", "kind", "row", "clear", "shown"),
    [
        (1, 0, b"\x40", (0,), (255, 255)),
        (2, 0, b"\x40", (1,), (255, 0)),
        (4, 0, b"\x70", (7,), (255, 0)),
        (4, 0, b"\x77", (119,), (119, 119)),  # is no level of four bits
        (8, 0, b"\x07\x00", (7,), (255, 0)),
        (16, 0, b"\x12\x34\x00\x00", (0x1234,), (255, 0)),
        (8, 2, b"\x07\x07\x07\x00\x00\x00", (7, 7, 7), (255, 0)),
        (16, 2, b"\x12\x34" * 3 + bytes(6), (0x1234,) * 3, (255, 0)),
        (16, 2, b"\xff\x00" * 3 + bytes(6), (0x0100,) * 3, (255, 0)),
    ],
)
def test_a_clear_colour_of_any_depth(tmp_path, depth, kind, row, clear, shown):
    path = png(tmp_path / "a.png", depth, kind, [row], tRNS=struct.pack(f">{len(clear)}H", *clear))
    assert pixels(path)[0, :, 0].tolist() == list(shown)


@pytest.mark.parametrize("name", ["a.bmp", "a.tga"])
def test_alpha_that_no_program_filled_in(tmp_path, name):
    """Four bytes a pixel, of which the fourth is zero everywhere: a picture, not a blank."""
    image = Image.fromarray(COLOURS)
    image.putalpha(0)
    image.save(tmp_path / name)
    if name == "a.bmp":  # Pillow writes no mask for alpha; others do
        content = bytearray((tmp_path / name).read_bytes())
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        head = struct.pack("<IiiHHIIiiII", 56, 30, 20, 1, 32, 3, 2400, 0, 0, 0, 0)
        (tmp_path / name).write_bytes(
            b"BM" + struct.pack("<IHHI", 70 + 2400, 0, 0, 70) + head + masks + content[-2400:]
        )
    with Image.open(tmp_path / name) as image:
        assert image.mode == "RGBA"
    assert np.array_equal(pixels(tmp_path / name), COLOURS)
    with_alpha("RGB").save(tmp_path / "b.tga")
    assert (pixels(tmp_path / "b.tga")[:, :15] == 255).all()


# --- colour profiles ------------------------------------------------------------------------------

# Columns: red, green and blue as XYZ at D50 (ICC.1:2022, F.3); Adobe RGB (1998) and sRGB.
WIDE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def profile(primaries, gamma: float, space: bytes = b"RGB ") -> bytes:
    """Returns an ICC profile (ICC.1:2022) of primaries, D50 white and a power curve."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {c + b"XYZ": xyz(*p) for c, p in zip((b"r", b"g", b"b"), primaries)}
        tags |= {c + b"TRC": curve for c in (b"r", b"g", b"b")}
    table, content = b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(content), len(value))
        content += value
    head = struct.pack(">I4sI4s4s4s", 0, b"\0" * 4, 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    whole = head + struct.pack(">I", len(tags)) + table + content
    return struct.pack(">I", len(whole)) + whole[4:]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_are_those_of_the_profile(tmp_path, name, alpha):
    image = Image.new("RGB", (32, 32), (60, 160, 60))
    if alpha and name != "a.jpg":
        image.putalpha(255)
    lossless = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100, "subsampling": 0}}
    image.save(tmp_path / name, icc_profile=profile(WIDE, 2.2), **lossless.get(name, {}))
    light = np.linalg.solve(
        np.transpose(SRGB), np.transpose(WIDE) @ (np.array([60, 160, 60]) / 255) ** 2.2
    )
    light = light.clip(0)  # a green that sRGB cannot show
    encoded = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    assert np.abs(pixels(tmp_path / name)[5, 5] - 255 * encoded).max() < 4


def test_grey_levels_are_those_of_the_profile(tmp_path):
    for mode, space in (("L", b"GRAY"), ("RGB", b"RGB "), ("P", b"RGB ")):
        image = Image.new("L", (8, 8), 64).convert(mode)
        image.save(tmp_path / "a.png", icc_profile=profile(SRGB, 1.0, space))
        assert abs(int(pixels(tmp_path / "a.png")[0, 0, 0]) - 137) < 3, mode  # linear light


@pytest.mark.parametrize(
    "icc",
    [
        *(b"", b"no profile", profile(SRGB, 2.2)[:150], profile(SRGB, 2.2, b"GRAY")),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
)
def test_profiles_that_change_nothing(tmp_path, icc):
    """sRGB's own to the bit; damaged ones and those of other modes are passed over."""
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=icc)
    assert np.array_equal(pixels(tmp_path / "a.png"), COLOURS)


# --- what is refused ------------------------------------------------------------------------------


def test_a_palette_that_is_missing(tmp_path):
    path = png(tmp_path / "a.png", 8, 3, [bytes(2)])
    for look in (read, read.check):
        with pytest.raises(DataError, match=r"a\.png .* there is no palette"):
            look(str(path))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_range_that_is_stated_for_colours_of_16_bits(tmp_path, name):
    """Pillow drops eight of the bits, so that 12 bits in 16 would show as nearly black."""
    path = tmp_path / name
    if name == "a.png":
        png(path, 16, 2, [bytes(12)])
    else:
        head = struct.pack("<2sHIH", b"II", 42, 20, 9)
        path.write_bytes(head[:8] + bytes(12) + head[8:])
        tags = [(256, 2), (257, 1), (258, 16), (259, 1), (262, 2), (273, 8), (277, 3), (279, 12)]
        rows = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (278, 1)]]
        path.write_bytes(path.read_bytes() + b"".join(sorted(rows)) + bytes(4))
    read.check(str(path))
    for look in (PictureReader(value_range=(0, 4095)), PictureReader(value_range=(0, 4095)).check):
        with pytest.raises(DataError, match=rf"{name} .* colours of 16 bits"):
            look(str(path))
