"""Bytes on the way, floats at the encoder: the same bits, the same draws, a bounded number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from dassl.data import build_data_loader, workers
from dassl.data.transforms import build_transform
from features import ImageFeatures, reading
from features.ahead import EncodedAhead
from features.batches import Settings
from features.reading import ByteImages, joined
from tests.data.helpers_loading import make_cfg, make_items, seed_all
from tests.features.test_ahead import generator_states, mean_colour

CPU = torch.device("cpu")
NORMALIZED = ("random_resized_crop", "random_flip", "normalize")


@pytest.fixture
def items(tmp_path):
    return make_items(tmp_path / "images", 11)


def loader(cfg, items, is_train=True, **settings):
    sampler = "RandomSampler" if is_train else "SequentialSampler"
    tfm = build_transform(cfg, is_train=is_train)
    return build_data_loader(cfg, sampler, items, tfm=tfm, is_train=is_train, **settings)


def every_byte() -> Image.Image:
    """An image in which each channel has all 256 values, in an order of its own."""
    values = [np.random.RandomState(i).permutation(256).astype(np.uint8) for i in range(3)]
    return Image.fromarray(np.stack(values, axis=1).reshape(16, 16, 3))


@pytest.mark.parametrize(
    "steps",
    [
        [T.ToTensor()],
        [T.ToTensor(), T.Normalize((0.48145466, 0.4578275, 0.4), (0.26862954, 0.2613, 0.3))],
        [T.Resize((16, 16)), T.CenterCrop(16), T.ToTensor(), T.Normalize([0.5] * 3, [0.1] * 3)],
    ],
)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_bit_is_the_same(items, steps, device):
    made = loader(make_cfg(), items)
    made.dataset.transform = T.Compose(steps)
    images = ByteImages(made.dataset)
    given = images.dataset.transform(every_byte())
    assert given.dtype == torch.uint8
    floats = images.floats(torch.stack([given, given]).to(device)).cpu()
    expected = T.Compose(steps)(every_byte())
    assert torch.equal(floats.view(torch.int32), torch.stack([expected] * 2).view(torch.int32))


@pytest.mark.parametrize("more", ["cutout", "gaussian_noise", "instance_norm", "randaugment2"])
def test_other_steps_make_floats_as_ever(items, more):
    cfg = make_cfg()
    cfg.INPUT.TRANSFORMS = ("random_flip", "normalize", more)
    made = loader(cfg, items)
    images = ByteImages(made.dataset)
    assert images.dataset is made.dataset
    some = torch.rand(2, 3, 4, 4)
    assert images.floats(some) is some


def features_of(made, at_once_bytes=2**20, store=0, fixed=None) -> ImageFeatures:
    return ImageFeatures(None, mean_colour, "fp32", CPU, Settings(at_once_bytes, store, "", fixed))


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_same_draws_and_bits_as_images(items, monkeypatch, n_workers, batch_size):
    """Three passes on bytes, against images encoded batch by batch."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    cfg = make_cfg(n_workers)
    cfg.INPUT.TRANSFORMS = NORMALIZED
    found = []
    for of_bytes in (True, False):
        made = loader(cfg, items, batch_size=batch_size)
        features = features_of(made)
        seed_all(1)
        rows = []
        for epoch in range(3):
            batches = features.training(made, epoch) if of_bytes else made
            for batch in batches:
                got = batch["features"] if of_bytes else mean_colour(batch["img"])
                rows.append((batch["index"].tolist(), got))
        found.append((rows, generator_states()))
        assert not of_bytes or features._bytes[1].dataset[0]["img"].dtype == torch.uint8
    (ours, state), (plain, plain_state) = found
    assert state == plain_state
    assert [index for index, _ in ours] == [index for index, _ in plain]
    torch.testing.assert_close([f for _, f in ours], [f for _, f in plain], rtol=1e-6, atol=1e-6)


def test_a_transform_that_is_replaced(items):
    made = loader(make_cfg(), items, batch_size=2)
    features = features_of(made)
    list(features.training(made, 0))
    made.dataset.transform = T.Compose([T.Resize((8, 8)), T.ToTensor()])
    assert features.training(made, 1).loader.dataset[0]["img"].shape == (3, 8, 8)


@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_groups_are_encoded_as_soon_as_they_are_there(monkeypatch, at_once):
    """The rest of the pass is read while they are learned from, and never held."""
    monkeypatch.setitem(reading.ENCODED_AT_ONCE, "cpu", at_once)
    read = []

    class Source:
        def __len__(self):
            return 5

        def __iter__(self):
            for number in range(5):
                read.append(number)
                yield {"img": torch.zeros(2, 3, 4, 4), "number": number}

    ahead = iter(EncodedAhead(Source(), mean_colour, CPU, 2**20))
    assert next(ahead)["number"] == 0
    assert len(read) == -(-at_once // 2)
    assert [batch["number"] for batch in ahead] == [1, 2, 3, 4]


@pytest.mark.parametrize("cores", [1, 4, 16])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_is_read_ahead_is_bounded(items, monkeypatch, cores, kind):
    """As many images as are encoded at once, or one batch a process, whatever is more."""
    monkeypatch.setattr(reading, "usable_cores", lambda: cores)
    monkeypatch.setattr(workers, "usable_cores", lambda: cores)
    many = (items * 400)[:4000]
    at_once = reading.ENCODED_AT_ONCE[kind]
    for batch_size in (1, 32):
        made = loader(make_cfg(8), many, batch_size=batch_size)
        twin = reading.byte_loader(made, ByteImages(made.dataset), at_once)
        most = twin.num_workers * twin.prefetch_factor * batch_size
        assert at_once <= most < at_once + twin.num_workers * batch_size
        assert twin.num_workers == min(8, cores)
    test = loader(make_cfg(8), many, is_train=False, batch_size=100)
    found = reading.reading_loader(test.dataset, range(len(many)), test, at_once)
    assert found.num_workers == cores  # all of them, whatever the number of streams
    assert found.num_workers * found.prefetch_factor * found.batch_size <= max(at_once, 64 * cores)


@pytest.mark.parametrize(("streams", "processes", "expected"), [(0, 0, 0), (0, 3, 0), (8, 3, 3)])
def test_processes_are_those_of_the_settings(items, monkeypatch, streams, processes, expected):
    monkeypatch.setattr(reading, "usable_cores", lambda: 16)
    cfg = make_cfg(streams)
    cfg.DATALOADER.PROCESSES = processes
    test = loader(cfg, items * 40, is_train=False)
    assert reading.reading_loader(test.dataset, range(440), test, 64).num_workers == expected


def test_batches_are_joined():
    sizes = [len(images) for images in joined(map(torch.zeros, (64, 64, 64, 10)), 128, CPU)]
    assert sizes == [128, 74]


def test_the_table_goes_to_a_device_once(items):
    """A copy waits for the GPU, and there is one window of images after the other."""
    images, seen = ByteImages(loader(make_cfg(), items).dataset), []
    table = images._table

    class Watched:
        def to(self, device: torch.device) -> torch.Tensor:
            seen.append(device)
            return table

    images._table = Watched()
    some = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert torch.equal(images.floats(some), images.floats(some)) and seen == [CPU]
