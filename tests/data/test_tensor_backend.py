"""INPUT.BACKEND "tensor": the draws of "pil", and nearly its pixels.

What happens on a GPU is tested on a CPU as well: there files are read by workers and decoded (by
Pillow) in the main process.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode

import dassl.data.transforms.tensor_backend as tensor_backend
from dassl.data import DatasetWrapper, build_data_loader, workers
from dassl.data.datasets import Datum
from dassl.data.transforms import TensorTransform, build_transform
from dassl.engine import config_problems
from dassl.utils import ConfigError, DataError, MissingFileError
from dassl.utils.results import read_records
from tests.data.helpers_loading import make_cfg, seed_all
from tests.runs import make_eurosat, run
from trainers.fixed_views import FixedViews
from trainers.image_features import VIEW_STEPS, file_ids, loader_ids

CPU = torch.device("cpu")
# In levels of 255: both round, Pillow between its two passes as well
LARGEST, MEAN = 2.01, 0.35
NVJPEG_MEAN = 3.0


def cfg_of(backend: str, n_workers: int = 0, interpolation: str = "bicubic") -> CfgNode:
    cfg = make_cfg(n_workers)
    cfg.INPUT.BACKEND, cfg.INPUT.INTERPOLATION, cfg.INPUT.SIZE = backend, interpolation, (24, 24)
    return cfg


@pytest.fixture
def items(tmp_path) -> list[Datum]:
    """Smooth images of several sizes and formats."""
    items = []
    for i, (name, mode) in enumerate(
        [("a.jpg", "RGB"), ("b.png", "RGB"), ("c.jpg", "L"), ("d.png", "P"), ("e.jpg", "RGB")]
    ):
        coarse = np.random.RandomState(i).randint(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((60 + 17 * i, 90 - 11 * i), Image.Resampling.BICUBIC)
        image.convert(mode).save(tmp_path / name)
        items.append(Datum(str(tmp_path / name), i % 2, classname=str(i % 2)))
    return items


def transform_of(cfg: CfgNode, is_train: bool, device: torch.device | None = None):
    transform = build_transform(cfg, is_train=is_train)
    if isinstance(transform, TensorTransform):
        transform.device = device
    return transform


def loader(cfg, items, is_train=True, device=None):
    transform = transform_of(cfg, is_train, device)
    sampler = "RandomSampler" if is_train else "SequentialSampler"
    return build_data_loader(cfg, sampler, items, batch_size=2, tfm=transform, is_train=is_train)


def two_passes(made) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """Indices, images in levels of 255, and the next random number."""
    seed_all(1)
    batches = [batch for _ in range(2) for batch in made]
    node = made.dataset.cfg.INPUT
    mean, std = (torch.tensor(x)[:, None, None] for x in (node.PIXEL_MEAN, node.PIXEL_STD))
    images = torch.cat([batch["img"].cpu() for batch in batches])
    indices = [i for batch in batches for i in batch["index"].tolist()]
    return indices, (images * std + mean) * 255, torch.rand(1)


def assert_near(got, expected, mean: float = MEAN, largest: float = LARGEST) -> None:
    assert got[0] == expected[0]
    assert torch.equal(got[2], expected[2]), "the random numbers moved"
    difference = (got[1] - expected[1]).abs()
    assert difference.mean() < mean and difference.max() < largest


@pytest.mark.parametrize("device", [None, CPU])
@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("is_train", [True, False])
def test_same_draws_and_nearly_the_same_pixels(items, monkeypatch, is_train, n_workers, device):
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    expected = two_passes(loader(cfg_of("pil", n_workers), items, is_train))
    got = two_passes(loader(cfg_of("tensor", n_workers), items, is_train, device))
    assert_near(got, expected)
    other = two_passes(loader(cfg_of("tensor", n_workers), items[::-1], is_train, device))
    assert (other[1] - expected[1]).abs().mean() > 10, "the test sees other images"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_without_a_random_crop(items, interpolation):
    got = []
    for backend in ("pil", "tensor"):
        cfg = cfg_of(backend, interpolation=interpolation)
        cfg.INPUT.TRANSFORMS = ("random_flip", "normalize")
        got.append(two_passes(loader(cfg, items)))
    assert_near(got[1], got[0])


@pytest.mark.parametrize("key", ["K_TRANSFORMS", "RETURN_IMG0"])
def test_several_views_are_made_by_the_workers(items, key):
    batches = []
    for device in (None, CPU):
        cfg = cfg_of("tensor")
        cfg.DATALOADER[key] = 2 if key == "K_TRANSFORMS" else True
        seed_all(3)
        batches.append(next(iter(loader(cfg, items, device=device))))
    for name in {"img", "img0"} & batches[0].keys():
        pairs = zip(batches[0][name], batches[1][name])
        assert all(torch.equal(a, b) for a, b in pairs)
    assert len(batches[0]["img"]) == 2


def test_fixed_views(items):
    def features(device: torch.device | None) -> torch.Tensor:
        made = loader(cfg_of("tensor"), items, device=device)
        views = FixedViews(made, 1, lambda images: images.flatten(1), CPU, None, None)
        return views._features(epoch=0)

    assert features(None).shape == (5, 3 * 24 * 24)
    torch.testing.assert_close(features(CPU), features(None))


@pytest.mark.parametrize("is_train", [True, False])
def test_features_are_kept_apart(items, is_train):
    ids = set()
    for backend, device in (("pil", None), ("tensor", None), ("tensor", CPU)):
        made = loader(cfg_of(backend), items, is_train, device)
        found = file_ids(made.dataset, VIEW_STEPS) if is_train else loader_ids(made)
        ids.update(found)
    assert len(ids) == 3 * len(items)


def test_bad_files_are_named(items, tmp_path):
    transform = transform_of(cfg_of("tensor"), True, CPU)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.jpg cannot be read"):
        transform.read(str(tmp_path / "bad.jpg"))
    with pytest.raises(MissingFileError, match=r"gone\.jpg does not exist"):
        transform.read(str(tmp_path / "gone.jpg"))
    path = Path(items[0].impath)
    path.write_bytes(path.read_bytes()[:-200])  # its header is whole
    with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
        list(loader(cfg_of("tensor"), items, False, CPU))


def test_steps_that_it_does_not_have():
    cfg = cfg_of("tensor")
    cfg.INPUT.TRANSFORMS = ("random_crop", "normalize")
    with pytest.raises(ConfigError, match=r"INPUT.BACKEND is tensor.*random_crop"):
        build_transform(cfg)
    assert any("random_crop" in p and "INPUT.BACKEND" in p for p in config_problems(cfg))
    cfg.INPUT.BACKEND = "cv2"
    assert any("INPUT.BACKEND" in p and "pil, tensor" in p for p in config_problems(cfg))


def test_can_be_sent_to_a_worker(items):
    transform = transform_of(cfg_of("tensor"), True, CPU)
    seed_all(0)
    view = pickle.loads(pickle.dumps(transform)).read(items[0].impath)
    seed_all(0)
    assert pickle.loads(pickle.dumps(view)) == transform.read(items[0].impath)


def test_without_nvjpeg_the_cpu_decodes(monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise RuntimeError("not compiled with nvJPEG support")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tensor_backend.torchvision.io, "decode_jpeg", fails)
    tensor_backend._decodes_on_gpu.cache_clear()
    cfg = cfg_of("tensor")
    cfg.USE_CUDA = True
    assert [build_transform(cfg).device for _ in range(2)] == [None, None]
    assert capsys.readouterr().out.count("has no nvJPEG") == 1
    tensor_backend._decodes_on_gpu.cache_clear()


def test_files_that_nvjpeg_cannot_read_go_to_pillow(items, monkeypatch):
    """A stand-in decodes on the CPU, colour alone; the others of the batch still come from it."""
    decoded = []

    def decode_jpeg(files, mode, device):
        images = [Image.open(io.BytesIO(bytes(file.tolist()))) for file in files]
        if any(image.mode != "RGB" for image in images):
            raise RuntimeError("unsupported")
        decoded.extend(images)
        return [torch.from_numpy(np.asarray(image)).permute(2, 0, 1) for image in images]

    monkeypatch.setattr(tensor_backend.torchvision.io, "decode_jpeg", decode_jpeg)
    files = [Path(item.impath).read_bytes() for item in items]
    found = tensor_backend._nvjpeg([file for file in files if file.startswith(b"\xff\xd8")])
    assert [image is None for image in found] == [False, True, False]
    assert len(decoded) == 2


def test_a_whole_run(tmp_path):
    data = make_eurosat(tmp_path / "data")
    digests = []
    for backend in ("pil", "tensor"):
        out = tmp_path / backend
        store = ("MODEL.FEATURES.FOLDER", str(tmp_path / "store"), "DATASET.NUM_SHOTS", "2")
        run(data, out, "INPUT.BACKEND", backend, *store, epoch=1)
        (record,) = read_records(out / "results.jsonl")
        assert record["images_encoded"] == 15
        digests.append(record["config_digest"])
    assert digests[0] != digests[1]


@pytest.mark.gpu
@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("is_train", [True, False])
def test_on_a_gpu(items, is_train, n_workers):
    cfg = cfg_of("tensor", n_workers)
    cfg.USE_CUDA = True
    transform = build_transform(cfg, is_train=is_train)
    assert transform.device == torch.device("cuda")
    assert isinstance(DatasetWrapper(cfg, items, transform)[0]["img"], tensor_backend.FileView)
    got = two_passes(loader(cfg, items, is_train, transform.device))
    expected = two_passes(loader(cfg_of("pil", n_workers), items, is_train))
    assert_near(got, expected, NVJPEG_MEAN, largest=64)
