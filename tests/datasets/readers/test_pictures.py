"""What an image of one's own shows, in every mode; and that the benchmarks read as ever."""

from __future__ import annotations

import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from dassl.data.datasets import DATASET_REGISTRY, image_reader
from dassl.data.image_cache import ImageCache
from dassl.utils import DataError, MissingFileError, read_image
from datasets.readers.pictures import ORIENTATION, PictureReader
from tests.datasets.helpers_folder import make_cfg

GREY = np.tile(np.arange(256, dtype=np.uint8), (20, 1))  # (20, 256)
SHOWN = np.stack([GREY] * 3, axis=2)
COLOURS = np.random.RandomState(0).randint(0, 256, (20, 30, 3), dtype=np.uint8)
read = PictureReader()


def pixels(path, reader=read) -> np.ndarray:
    reader.check(str(path))
    image = reader(str(path))
    assert image.mode == "RGB"
    return np.asarray(image)


def tiff(path, array, **tags) -> object:
    """Writes a TIFF file with tags by number: _340=0.0."""
    info = ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag[1:])] = value
    Image.fromarray(array).save(path, tiffinfo=info)
    return path


# --- grey levels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "a.pgm"])
def test_16_bit_grey_has_the_range_of_16_bits(tmp_path, name):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / name)
    assert np.array_equal(pixels(tmp_path / name), SHOWN)


def test_16_bit_grey_of_the_other_byte_order(tmp_path):
    big = Image.frombytes("I;16B", (256, 20), (GREY.astype(">u2") * 257).tobytes())
    big.save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == "I;16B"
    assert np.array_equal(pixels(tmp_path / "a.tif"), SHOWN)


def test_16_bit_tiff_in_which_zero_is_white(tmp_path):
    content = bytearray(tiff(tmp_path / "a.tif", GREY.astype(np.uint16) * 257).read_bytes())
    place = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00")  # PhotometricInterpretation
    content[place + 8] = 0
    (tmp_path / "a.tif").write_bytes(content)
    assert np.array_equal(pixels(tmp_path / "a.tif"), 255 - SHOWN)


def test_floats_from_0_to_1(tmp_path):
    Image.fromarray((GREY / 255).astype(np.float32)).save(tmp_path / "a.tif")
    assert np.array_equal(pixels(tmp_path / "a.tif"), SHOWN)


@pytest.mark.parametrize(
    "array",
    [
        GREY.astype(np.float32),
        GREY.astype(np.float32) / 128 - 1,
        np.where(GREY == 7, np.nan, 0.5).astype(np.float32),
        np.where(GREY == 7, np.inf, 0.5).astype(np.float32),
        GREY.astype(np.int32),
        GREY.astype(np.int32) * 257,
        GREY.astype(np.int32) - 100,
    ],
)
def test_what_the_file_does_not_say_is_refused_with_its_name(tmp_path, array):
    Image.fromarray(array).save(tmp_path / "a.tif")
    for look in (read, read.check):
        with pytest.raises(DataError, match=r"a\.tif cannot be read: .*DATASET.VALUE_RANGE"):
            look(str(tmp_path / "a.tif"))


@pytest.mark.parametrize(
    ("array", "tags"),
    [
        (GREY.astype(np.float32) * 3 - 50, {"_340": -50.0, "_341": 715.0}),
        (GREY.astype(np.int32) * 10, {"_280": 0, "_281": 2550}),
        (GREY.astype(np.uint16) * 16, {"_281": 4080}),
    ],
)
def test_the_range_that_a_tiff_file_states(tmp_path, array, tags):
    path = tmp_path / "a.tif"
    tiff(path, array, **tags)
    with Image.open(path) as image:
        if not all(int(tag[1:]) in image.tag_v2 for tag in tags):
            pytest.skip("this Pillow does not write these tags")
    assert np.array_equal(pixels(path), SHOWN)


@pytest.mark.parametrize(
    ("array", "limits"),
    [
        (GREY.astype(np.int32), (0, 255)),
        (GREY.astype(np.float32) / 128 - 1, (-1, 127 / 128)),
        (GREY.astype(np.uint16) * 16, (0, 4080)),
    ],
)
def test_a_range_that_the_user_states(tmp_path, array, limits):
    Image.fromarray(array).save(tmp_path / "a.tif")
    assert np.array_equal(pixels(tmp_path / "a.tif", PictureReader(value_range=limits)), SHOWN)


def test_a_stated_range_leaves_8_bits_alone(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png", PictureReader(value_range=(0, 4095))), SHOWN)


def test_signed_bytes_are_refused(tmp_path):
    tiff(tmp_path / "a.tif", GREY, _339=2)
    with pytest.raises(DataError, match=r"a\.tif .*signed"):
        read.check(str(tmp_path / "a.tif"))


# --- orientation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_orientation(tmp_path, orientation, ending):
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    settings = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(COLOURS).save(path, exif=exif, **settings)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image.convert("RGB") if ending != "tif" else image)
    assert pixels(path).shape == ((30, 20, 3) if orientation > 4 else (20, 30, 3))
    assert np.array_equal(pixels(path), np.asarray(expected))


TURNS = {
    **{2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
    **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE},
    **{6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90},
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I;16B"])
def test_orientation_of_tiff_in_every_mode(tmp_path, mode, orientation):
    """Pillow scrambles uncompressed TIFF files of some modes that lie on their side."""
    rng, depth = np.random.RandomState(0), {"LA": 2, "RGBA": 4, "CMYK": 4, "RGB": 3}.get(mode, 1)
    pixels_ = rng.randint(0, 256, (20, 30, 2 if mode.startswith("I") else depth), dtype=np.uint8)
    if mode in ("1", "P"):
        image = Image.fromarray(pixels_[..., 0]).convert(mode)
    else:
        image = Image.frombytes(mode, (30, 20), pixels_.tobytes())
    image.save(tmp_path / "flat.tif")
    image.save(tmp_path / "turned.tif", tiffinfo={ORIENTATION: orientation})
    expected = read(str(tmp_path / "flat.tif")).transpose(TURNS[orientation])
    assert np.array_equal(pixels(tmp_path / "turned.tif"), np.asarray(expected))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_words_in_place_of_exif(tmp_path, name):
    Image.fromarray(COLOURS).save(tmp_path / name, exif=b"Exif\0\0garbage garbage")
    assert pixels(tmp_path / name).shape == COLOURS.shape


def test_orientation_of_deep_grey(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.rot90(SHOWN, -1))


# --- transparency ---------------------------------------------------------------------------------

HALF = np.where(np.arange(30) < 15, 0, 255).astype(np.uint8)  # the left half is clear
CLEAR = Image.fromarray(np.tile(HALF, (20, 1)))


def with_alpha(mode: str) -> Image.Image:
    image = Image.fromarray(COLOURS).convert(mode)
    image.putalpha(CLEAR)
    return image


@pytest.mark.parametrize("colour", ["white", "black", "#808080"])
@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.png"), ("L", "a.png"), ("RGB", "a.webp"), ("RGB", "a.tif"), ("L", "a.tif")],
)
def test_clear_pixels_show_the_background(tmp_path, mode, name, colour):
    with_alpha(mode).save(tmp_path / name, **({"lossless": True} if "webp" in name else {}))
    shown = pixels(tmp_path / name, PictureReader(background=colour))
    expected = np.asarray(Image.fromarray(COLOURS).convert(mode).convert("RGB"))
    assert np.array_equal(shown[:, 15:], expected[:, 15:])
    value = {"white": 255, "black": 0, "#808080": 128}[colour]
    assert (shown[:, :15] == value).all()


def test_a_drawing_that_is_in_the_alpha_channel_alone(tmp_path):
    drawing = Image.new("RGBA", (256, 20))
    drawing.putalpha(Image.fromarray(GREY))
    drawing.save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), 255 - SHOWN)


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_palette_with_a_clear_colour(tmp_path, name):
    image = Image.fromarray(np.tile((HALF > 0).astype(np.uint8), (20, 1)))
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.save(tmp_path / name, transparency=0)
    shown = pixels(tmp_path / name)
    assert (shown[:, :15] == 255).all() and (shown[:, 15:] == (200, 10, 20)).all()


@pytest.mark.parametrize(
    ("array", "clear"),
    [
        (COLOURS * 0 + np.uint8(7), (7, 7, 7)),
        (COLOURS[..., 0] * 0 + np.uint8(7), 7),
        (COLOURS[..., 0].astype(np.uint16) * 0 + np.uint16(777), 777),
    ],
)
def test_one_clear_colour(tmp_path, array, clear):
    Image.fromarray(array).save(tmp_path / "a.png", transparency=clear)
    assert (pixels(tmp_path / "a.png") == 255).all()


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


# --- other modes ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_plain_modes_are_converted_as_ever(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.fromarray(COLOURS).convert(mode).save(path)
    assert np.array_equal(pixels(path), np.asarray(read_image(path)))


def test_cmyk_jpeg(tmp_path):
    Image.new("RGB", (32, 32), (255, 0, 0)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() < 6


def test_lab(tmp_path):
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = Image.new("RGB", (32, 32), (200, 30, 60))
    ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB").save(tmp_path / "a.tif")
    assert np.abs(pixels(tmp_path / "a.tif").astype(int) - (200, 30, 60)).max() < 4


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_first_frame_or_page(tmp_path, name):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "lime")]
    settings = {"lossless": True} if "webp" in name else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **settings)
    assert (pixels(tmp_path / name) == (255, 0, 0)).all()


# --- what is refused ------------------------------------------------------------------------------


def test_a_thumbnail_in_front_of_the_picture(tmp_path):
    tiff(tmp_path / "a.tif", COLOURS, _254=1)
    with pytest.raises(DataError, match=r"a\.tif .*thumbnail"):
        read.check(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_file_that_was_cut_short_is_found_before_it_is_used(tmp_path, name):
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (200, 200, 3), dtype=np.uint8))
    image.save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=name):
        read.check(str(tmp_path / name))
    (tmp_path / name).write_bytes(content + bytes(10_000))  # some cameras fill up their files
    read.check(str(tmp_path / name))
    (tmp_path / name).write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    with pytest.raises(DataError, match=name):
        read.check(str(tmp_path / name))


def test_a_check_decodes_nothing_that_is_whole(tmp_path, monkeypatch):
    for name in ("a.jpg", "a.png", "a.tif", "a.gif"):
        Image.fromarray(COLOURS).save(tmp_path / name)
    monkeypatch.setattr(PictureReader, "_shown", None)
    for path in tmp_path.iterdir():
        read.check(str(path))


def test_bytes_that_pass_for_tga_by_chance(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.tga")
    assert np.array_equal(pixels(tmp_path / "a.tga"), COLOURS)
    (tmp_path / "a.tga").rename(tmp_path / "a.dat")
    with pytest.raises(DataError, match=r"a\.dat cannot be read"):
        read.check(str(tmp_path / "a.dat"))


def test_missing_files_and_wrong_settings(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone\.jpg does not exist"):
        read.check(str(tmp_path / "gone.jpg"))
    for colour in ("wite", "", "rgba(0, 0, 0, 0)", None):
        with pytest.raises(DataError, match=r"DATASET.BACKGROUND is .*; expected a colour"):
            PictureReader(background=colour)
    for limits in ((1,), (1, 1), (2, 1), ("a", "b"), (0, float("nan"))):
        with pytest.raises(DataError, match=r"DATASET.VALUE_RANGE is .*; expected the values"):
            PictureReader(value_range=limits)


# --- who reads how --------------------------------------------------------------------------------


def test_own_images_alone_are_read_so():
    for name in DATASET_REGISTRY.registered_names():
        reader = image_reader(make_cfg(NAME=name))
        assert (reader == PictureReader()) if name == "Folder" else (reader is None), name
    cfg = make_cfg(BACKGROUND="black", VALUE_RANGE=(0, 4095))
    assert image_reader(cfg) == PictureReader("black", (0, 4095))


def test_the_benchmarks_read_as_the_public_code_does(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    with_alpha("RGB").save(tmp_path / "a.png")
    Image.fromarray(COLOURS).save(tmp_path / "b.jpg", exif=exif)
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "c.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(np.asarray(ImageCache(2**20).read(str(path))), expected)
        assert not np.array_equal(pixels(path), expected)


def test_a_reader_goes_with_its_cache_to_worker_processes(tmp_path):
    with_alpha("RGB").save(tmp_path / "a.png")
    cache = pickle.loads(pickle.dumps(ImageCache(2**20, PictureReader("black"))))
    assert cache.reader == PictureReader("black") and cache.reader.identity
    for _ in range(2):
        assert (np.asarray(cache.read(str(tmp_path / "a.png")))[:, :15] == 0).all()
    assert PictureReader("black").identity != PictureReader("white").identity
