"""Loaders against samplers.json (order, sizes) and the items they load against transforms.npz."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from dassl.config import Config, get_cfg_default
from dassl.data.data_manager import DatasetWrapper, build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from tests.golden_recipes import load_json
from tests.parity.helpers_transforms import (
    for_installed_pillow,
    image,
    input_cfg,
    load_golden,
    seed_all,
)

LOADERS = load_json("samplers.json")["loader"]
ARRAYS, META = load_golden()


def make_cfg(**loading: Any) -> Config:
    """Defaults without workers, with the INPUT settings of the transform goldens."""
    cfg = get_cfg_default()
    for key, value in input_cfg().INPUT.items():
        cfg.INPUT[key] = value
    for key, value in {"NUM_WORKERS": 0, **loading}.items():
        cfg.DATALOADER[key] = value
    return cfg


def case_id(case: dict[str, Any]) -> str:
    return f"{case['items']}-of-{case['batch_size']}-{'train' if case['is_train'] else 'test'}"


class IndexOnly(Dataset):
    """In place of DatasetWrapper: an item is its index."""

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize("case", LOADERS, ids=case_id)
def test_batches_of_two_epochs(case):
    loader = build_data_loader(
        make_cfg(),
        sampler_type="RandomSampler" if case["is_train"] else "SequentialSampler",
        data_source=[Datum(label=i) for i in range(case["items"])],
        batch_size=case["batch_size"],
        is_train=case["is_train"],
        dataset_wrapper=IndexOnly,
    )
    assert len(loader) == case["n_batches"]
    assert loader.drop_last is case["drop_last"]
    seed_all(case["seed"])
    epochs = [[batch.tolist() for batch in loader] for _ in range(2)]
    assert epochs == case["batches_of_two_epochs"]
    assert float(torch.rand(1)) == pytest.approx(case["next_torch_rand"], abs=1e-9)


@pytest.fixture
def item(tmp_path) -> Datum:
    spec = META["images"]["b"]
    path = tmp_path / "b.png"
    image(spec["height"], spec["width"], spec["k"]).save(path)
    expected = META["dataset_wrapper_item"]
    return Datum(str(path), expected["label"], expected["domain"])


def compare(result: torch.Tensor, name: str) -> None:
    expected = ARRAYS[for_installed_pillow(name, META)]
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=1e-6)


def test_item_with_two_views_and_the_plain_image(item):
    cfg = make_cfg(K_TRANSFORMS=2, RETURN_IMG0=True)
    wrapper = DatasetWrapper(cfg, [item], transform=build_transform(cfg), is_train=True)
    seed_all(2)
    output = wrapper[0]
    assert list(output) == list(META["dataset_wrapper_item"])
    for key, expected in META["dataset_wrapper_item"].items():
        value = output[key]
        assert (value if isinstance(expected, int) else type(value).__name__) == expected
    assert output["impath"] == item.impath
    compare(output["img0"], "dataset_wrapper/img0/b")
    for k, view in enumerate(output["img"]):
        compare(view, f"dataset_wrapper/img/b/seed2/k{k}")
    assert len(output["img"]) == 2


def test_testing_makes_one_view(item):
    cfg = make_cfg(K_TRANSFORMS=2)
    wrapper = DatasetWrapper(cfg, [item], transform=build_transform(cfg, is_train=False))
    state = random.getstate(), torch.get_rng_state()
    output = wrapper[0]
    compare(output["img"], "test/32/b")
    assert "img0" not in output
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])


def test_batch_of_loaded_images(item):
    cfg = make_cfg()
    items = [item, Datum(item.impath, 1), item]
    tfm = build_transform(cfg, is_train=False)
    loader = build_data_loader(cfg, data_source=items, batch_size=2, tfm=tfm, is_train=False)
    first, last = loader
    assert first["img"].shape == (2, 3, 32, 32) and last["img"].shape == (1, 3, 32, 32)
    assert first["label"].tolist() == [3, 1] and first["index"].tolist() == [0, 1]
    assert first["impath"] == [item.impath] * 2
    compare(last["img"][0], "test/32/b")
