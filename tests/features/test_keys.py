"""What a stored feature's key depends on: whatever changes gives another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import transforms as T

from dassl.data import DatasetWrapper, build_data_loader
from dassl.data.transforms import build_transform
from features import keys
from features.keys import VIEW_STEPS, file_ids, loader_ids, space_of
from tests.data.helpers_loading import make_cfg, make_items
from tests.runs import ROOT

CPU = torch.device("cpu")


@pytest.fixture
def items(tmp_path):
    return make_items(tmp_path / "images", 3)


def ids_of(cfg, items) -> list[bytes] | None:
    tfm = build_transform(cfg, is_train=False)
    loader = build_data_loader(
        cfg, cfg.DATALOADER.TEST.SAMPLER, items, batch_size=2, tfm=tfm, is_train=False
    )
    return loader_ids(loader)


def test_same_files_same_ids(items):
    assert ids_of(make_cfg(), items) == ids_of(make_cfg(2), items[::-1])[::-1]
    assert len(set(ids_of(make_cfg(), items))) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.SIZE", (17, 17)),
        ("INPUT.INTERPOLATION", "bicubic"),
        ("INPUT.TRANSFORMS", ("random_flip",)),  # not normalized
        ("INPUT.PIXEL_MEAN", [0.485, 0.456, 0.4060001]),
        ("INPUT.PIXEL_STD", [0.229, 0.224, 0.2]),
    ],
)
def test_other_preprocessing_other_ids(items, key, value):
    cfg = make_cfg()
    before = ids_of(cfg, items)
    cfg.merge_from_list([key, value])
    assert not set(before) & set(ids_of(cfg, items))


def test_other_library_other_ids(items, monkeypatch):
    before = ids_of(make_cfg(), items)
    monkeypatch.setattr(keys.PIL, "__version__", "99.0")
    pillow = ids_of(make_cfg(), items)
    monkeypatch.setattr(keys.torchvision, "__version__", "99.0")
    assert len({*before, *pillow, *ids_of(make_cfg(), items)}) == 9


def test_other_file_content_other_id(items):
    before = ids_of(make_cfg(), items)
    path = Path(items[1].impath)
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-10] ^= 1  # same size, and the time of the change is hidden
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [a == b for a, b in zip(before, ids_of(make_cfg(), items))] == [True, False, True]


def test_where_features_cannot_stand_for_images(items):
    cfg = make_cfg()
    cfg.DATALOADER.TEST.SAMPLER = "RandomSampler"
    assert ids_of(cfg, items) is None
    cfg = make_cfg()
    cfg.INPUT.TRANSFORMS = ("instance_norm",)  # its text does not say what it does
    assert ids_of(cfg, items) is None
    cfg = make_cfg()
    cfg.DATALOADER.RETURN_IMG0 = True
    assert ids_of(cfg, items) is None

    class Mine(DatasetWrapper):
        pass

    cfg = make_cfg()
    tfm = build_transform(cfg, is_train=False)
    kwargs = {"data_source": items, "tfm": tfm, "is_train": False}
    assert loader_ids(build_data_loader(cfg, **kwargs)) is not None
    assert loader_ids(build_data_loader(cfg, dataset_wrapper=Mine, **kwargs)) is None
    assert loader_ids([{"img": torch.zeros(1, 3, 4, 4)}]) is None
    dataset = DatasetWrapper(cfg, items, T.Compose([T.Lambda(lambda x: x)]))
    assert file_ids(dataset, VIEW_STEPS) is None
    Path(items[0].impath).unlink()
    assert loader_ids(build_data_loader(cfg, **kwargs)) is None


class Visual(nn.Linear):
    output_dim = 2


def test_space(monkeypatch):
    torch.manual_seed(0)
    visual = Visual(3, 2)
    names = [space_of(visual, "fp32", CPU)]
    assert names[0] == space_of(visual, "fp32", CPU)
    twin = Visual(3, 2)
    twin.load_state_dict(visual.state_dict())
    assert space_of(twin, "fp32", CPU) == names[0]
    with torch.no_grad():
        visual.weight[1, 2] += 1e-6
    names.append(space_of(visual, "fp32", CPU))
    names.append(space_of(visual, "amp", CPU))
    names.append(space_of(visual.half(), "amp", CPU))
    names.append(space_of(visual, "amp", torch.device("cuda")))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    names.append(space_of(visual, "amp", CPU))
    monkeypatch.setattr(keys, "_code_digest", lambda: "edited")
    names.append(space_of(visual, "amp", CPU))
    assert len(set(names)) == len(names) == 7


def test_code_of_the_encoder_is_part_of_the_space(monkeypatch):
    own = set((ROOT / "encoders").rglob("*.py"))
    assert len(own) > 10 and own < set(keys.code_files())
    digests = set()
    for more in ([], [Path(__file__)]):
        keys._code_digest.cache_clear()
        code = [*keys.code_files(), *more]
        with monkeypatch.context() as patch:
            patch.setattr(keys, "code_files", lambda code=code: code)
            digests.add(keys._code_digest())
    keys._code_digest.cache_clear()
    assert len(digests) == 2
