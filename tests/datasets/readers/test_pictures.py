"""What an image of one's own shows, in every mode; and that the benchmarks read as ever."""

from __future__ import annotations

import pickle

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


# --- other modes ----------------------------------------------------------------------------------


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
