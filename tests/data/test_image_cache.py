"""The cache of decoded images: same pixels, bounded memory, one read per image."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import dassl.data.image_cache as image_cache
from dassl.data import build_data_loader
from dassl.data.image_cache import ImageCache
from dassl.data.transforms import build_transform
from dassl.utils import DataError, MissingFileError, read_image
from tests.data.helpers_loading import BYTES, assert_same, make_cfg, make_items, passes, seed_all


@pytest.fixture
def items(tmp_path):
    return make_items(tmp_path / "images", 10)


@pytest.fixture
def reads(monkeypatch):
    """Lists the paths that are read from disk in this process."""
    paths = []
    monkeypatch.setattr(image_cache, "read_image", lambda p: paths.append(p) or read_image(p))
    return paths


def pixels(image: Image.Image) -> bytes:
    assert image.mode == "RGB"
    return np.asarray(image).tobytes()


def test_pixels_are_those_of_read_image(items):
    cache = ImageCache(2**30)
    for _ in range(2):
        for item in items:
            assert pixels(cache.read(item.impath)) == pixels(read_image(item.impath))


def test_each_image_is_read_once(items, reads):
    cache = ImageCache(2**30)
    for _ in range(3):
        for item in items:
            cache.read(item.impath)
    assert reads == [item.impath for item in items]
    assert len(cache) == 10 and cache.bytes == 10 * BYTES


def test_changing_what_was_read_changes_nothing(items):
    cache = ImageCache(2**30)
    expected = pixels(read_image(items[0].impath))
    for _ in range(3):
        image = cache.read(items[0].impath)
        assert pixels(image) == expected
        ImageDraw.Draw(image).rectangle((0, 0, 20, 20), fill="red")
        image.putpixel((30, 20), (1, 2, 3))


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (BYTES - 1, 0), (BYTES, 1), (4 * BYTES, 4)])
def test_bound(items, reads, limit, kept):
    cache = ImageCache(limit)
    for _ in range(2):
        for item in items:
            cache.read(item.impath)
    assert len(cache) == kept and cache.bytes == kept * BYTES <= limit
    assert len(reads) == kept + 2 * (10 - kept)


MEASURE = """
import os, sys
from pathlib import Path
from dassl.data.image_cache import ImageCache

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

cache = ImageCache(100 * 2**20)
paths = sorted(sys.argv[1:])
cache.read(paths[0])
before, counted = resident(), cache.bytes
for path in paths:
    cache.read(path)
print(len(cache), cache.bytes <= cache.max_bytes, (resident() - before) / (cache.bytes - counted))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells")
def test_memory_is_what_is_counted(tmp_path):
    """A fresh process grows by what `bytes` says: Pillow keeps RGB in four bytes a pixel."""
    Image.new("RGB", (1000, 1000)).save(tmp_path / "00.png")
    for i in range(1, 31):
        (tmp_path / f"{i:02d}.png").symlink_to(tmp_path / "00.png")
    command = [sys.executable, "-c", MEASURE, *map(str, tmp_path.iterdir())]
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    kept, bounded, growth = result.stdout.split()
    assert (kept, bounded) == ("26", "True")
    assert 0.9 < float(growth) < 1.2


@pytest.mark.parametrize("threads", [1, 3])
def test_filling_before_the_workers_start(items, reads, threads, monkeypatch):
    monkeypatch.setattr(image_cache.multiprocessing, "get_start_method", lambda: "fork")
    cache = ImageCache(6 * BYTES + 5)
    cache.prepare_workers([item.impath for item in [*items, *items]], threads)
    assert len(cache) == 6 and cache.bytes == 6 * BYTES
    assert len(reads) == len(set(reads))  # a path given twice is read once
    assert pixels(cache.read(items[9].impath)) == pixels(read_image(items[9].impath))
    assert len(cache) == 6  # a worker keeps nothing for itself


def test_where_workers_do_not_share_memory_each_has_its_part(items, reads, monkeypatch):
    monkeypatch.setattr(image_cache.multiprocessing, "get_start_method", lambda: "spawn")
    cache = ImageCache(8 * BYTES)
    cache.read(items[0].impath)
    cache.prepare_workers([item.impath for item in items], 4)
    assert len(reads) == 1 and cache.max_bytes == 2 * BYTES
    sent = pickle.loads(pickle.dumps(cache))
    assert len(sent) == 0 and sent.bytes == 0 and sent.max_bytes == 2 * BYTES
    assert len(pickle.dumps(cache)) < BYTES


def test_bad_files_are_named(tmp_path, items):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    cache = ImageCache(2**30)
    for _ in range(2):
        with pytest.raises(DataError, match=r"bad\.jpg cannot be read"):
            cache.read(str(bad))
        with pytest.raises(MissingFileError, match=r"gone\.jpg does not exist"):
            cache.read(str(tmp_path / "gone.jpg"))
    with pytest.raises(DataError, match=r"bad\.jpg"):
        ImageCache(2**30)._fill([items[0].impath, str(bad)], 2)


# --- through the loader ---------------------------------------------------------------------------


def loader(cfg, items, **kwargs):
    kwargs = {"sampler_type": "RandomSampler", "batch_size": 4, **kwargs}
    is_train = kwargs.get("is_train", True)
    return build_data_loader(
        cfg, data_source=items, tfm=build_transform(cfg, is_train=is_train), **kwargs
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("choices", ["standard", "heavy"])
def test_same_tensors_with_and_without_cache(items, workers, choices):
    got = []
    for cache_mb in (0, 1024):
        cfg = make_cfg(workers, cache_mb)
        if choices == "heavy":
            cfg.INPUT.TRANSFORMS = ("random_resized_crop", "randaugment", "cutout", "normalize")
            cfg.DATALOADER.K_TRANSFORMS = 2
            cfg.DATALOADER.RETURN_IMG0 = True
        made = loader(cfg, items)
        if choices == "standard":
            got.append(passes(made, 3))
        else:
            seed_all(0)
            got.append([t for _ in range(2) for b in made for t in (*b["img"], b["img0"])])
    assert_same(*got)


def test_a_partly_cached_set_gives_the_same_tensors(items):
    got = []
    for limit in (0, 3 * BYTES):
        for workers in (0, 2):
            made = loader(make_cfg(workers), items)
            made.dataset.images.max_bytes = limit
            got.append(passes(made, 2))
            assert len(made.dataset.images) == limit // BYTES
    assert_same(got[0], got[2])
    assert_same(got[1], got[3])


def test_training_images_are_read_once_and_test_images_once_per_evaluation(items, reads):
    cfg = make_cfg()
    train = loader(cfg, items, batch_size=5)
    passes(train, 3)
    assert sorted(reads) == [item.impath for item in items]
    reads.clear()
    test = loader(cfg, items, is_train=False, sampler_type="SequentialSampler")
    passes(test, 2)
    assert reads == 2 * [item.impath for item in items]
    assert len(test.dataset.images) == 0


def test_workers_share_what_was_decoded_before_they_started(items):
    """Once they run, the files may even go away."""
    if image_cache.multiprocessing.get_start_method() != "fork":
        pytest.skip("workers do not share memory here")
    made = loader(make_cfg(workers=2), items, batch_size=5)
    first = iter(made)
    assert len(made.dataset.images) == 10
    for item in items:
        Path(item.impath).unlink()
    assert sum(len(batch["index"]) for batch in first) == 10
    assert sum(len(batch["index"]) for batch in made) == 10
