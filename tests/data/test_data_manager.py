"""Loaders: worker processes, what they draw, errors in them, foreign wrappers."""

from __future__ import annotations

import gc
import os
import random
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.sampler import RandomSampler, SequentialSampler

from dassl.data import DatasetWrapper, build_data_loader, workers
from dassl.data.transforms import build_transform
from dassl.data.workers import Loader, count_processes
from dassl.utils import DataError, MissingFileError
from tests.data.helpers_loading import assert_same, make_cfg, make_items, passes, seed_all


@pytest.fixture
def items(tmp_path):
    return make_items(tmp_path / "images", 11)


@pytest.fixture
def cores(monkeypatch):
    """Pretends that the machine has so many cores."""

    def pretend(n: int) -> None:
        monkeypatch.setattr(workers, "usable_cores", lambda: n)

    pretend(2)
    return pretend


def loader(cfg, items, is_train=True, **kwargs):
    kwargs = {"batch_size": 2, "tfm": build_transform(cfg, is_train=is_train), **kwargs}
    sampler = "RandomSampler" if is_train else "SequentialSampler"
    return build_data_loader(cfg, sampler, items, is_train=is_train, **kwargs)


def plain_loader(cfg, items, is_train=True):
    """torch's own loader without cache, whose workers start anew for each pass: upstream's."""
    cfg = cfg.clone()
    cfg.DATALOADER.CACHE_MB = 0
    return DataLoader(
        DatasetWrapper(cfg, items, build_transform(cfg, is_train=is_train), is_train),
        batch_size=2,
        sampler=RandomSampler(items) if is_train else SequentialSampler(items),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train,
    )


# --- random numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_workers", [0, 1, 2])
@pytest.mark.parametrize("is_train", [True, False])
def test_draws_are_those_of_a_loader_with_restarted_workers(items, cores, n_workers, is_train):
    """Order, augmentation, and what is left in the main process, over several passes."""
    cfg = make_cfg(n_workers)
    expected = passes(plain_loader(cfg, items, is_train), 3)
    assert_same(passes(loader(cfg, items, is_train), 3), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("n_cores", [1, 2, 3, 4])
def test_draws_do_not_depend_on_the_number_of_cores(items, cores, n_cores):
    cores(n_cores)
    cfg = make_cfg(4)
    made = loader(cfg, items)
    assert made.num_workers == {1: 1, 2: 2, 3: 2, 4: 4}[n_cores]
    assert_same(passes(made, 3), passes(plain_loader(cfg, items), 3))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_processes_do_not_change_the_draws_but_streams_do(items, cores):
    cores(4)  # PROCESSES 0: one process a core
    drawn = {}
    for n_streams, n_processes, expected in [(4, 1, 1), (4, 2, 2), (4, 0, 4), (2, 0, 2), (2, 1, 1)]:
        cfg = make_cfg(n_streams)
        cfg.DATALOADER.PROCESSES = n_processes
        made = loader(cfg, items)
        assert made.num_workers == expected
        drawn[n_streams, n_processes] = passes(made, 2)
    for n_streams, n_processes in drawn:
        assert_same(drawn[n_streams, n_processes], drawn[n_streams, 1])
    by_main_process = passes(loader(make_cfg(0), items), 2)
    for got in (drawn[2, 1], by_main_process):
        images = [torch.cat(tensors[1:-1:2]) for tensors in (got, drawn[4, 1])]
        assert not torch.equal(*images), "another number of streams draws other views"


def test_an_unfinished_pass_does_not_disturb_the_next(items, cores):
    cfg = make_cfg(2)
    got = []
    for make in (loader, plain_loader):
        made = make(cfg, items)
        seed_all(3)
        next(iter(made))
        got.append([t for _ in range(2) for b in made for t in (b["index"], b["img"])])
    assert_same(*got)


def test_all_generators_of_a_worker_are_fixed_by_the_seed(items, cores):
    got = []
    for n_cores in (1, 2):
        cores(n_cores)
        made = loader(make_cfg(4), items, tfm=_draw_from_each)
        got.append(passes(made, 3))
        assert made.num_workers == n_cores
    assert_same(*got)
    drawn = torch.cat(got[0][1:-1:2])
    assert len(drawn.unique(dim=0)) == len(drawn) == 30  # nor does a number come twice


def _draw_from_each(image):
    return torch.tensor([random.random(), np.random.random(), float(torch.rand(()))])


# --- processes ------------------------------------------------------------------------------------


def test_workers_stay(items, cores):
    made = loader(make_cfg(2), items, tfm=lambda image: torch.tensor(os.getpid()))
    assert made._iterator is None  # nothing runs before the first pass
    pids = [set(torch.cat([batch["img"] for batch in made]).tolist()) for _ in range(3)]
    assert len(pids[0]) == 2 and pids[0] == pids[1] == pids[2]
    assert os.getpid() not in pids[0]


@pytest.mark.parametrize(
    ("streams", "n_cores", "batches", "expected"),
    [
        (0, 8, 10, 0),
        (8, 8, 100, 8),
        (8, 64, 100, 8),
        (8, 2, 100, 2),
        (8, 6, 100, 4),
        (6, 4, 100, 3),
        (7, 4, 100, 1),
        (8, 8, 5, 4),
        (8, 8, 1, 1),
        (4, 1, 9, 1),
    ],
)
def test_number_of_processes(streams, n_cores, batches, expected):
    assert count_processes(streams, n_cores, batches) == expected


def test_no_warning_about_workers(items):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = loader(make_cfg(64), items)
        assert 1 <= made.num_workers <= workers.usable_cores()
        assert len(list(made)) == 5


def test_no_workers_asked_for(items):
    made = loader(make_cfg(0), items)
    assert made.num_workers == 0 and isinstance(made.sampler, RandomSampler)


def test_pinned_memory_only_with_cuda(items, monkeypatch):
    cfg = make_cfg()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not loader(cfg, items).pin_memory
    cfg.USE_CUDA = True
    assert loader(cfg, items).pin_memory
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not loader(cfg, items).pin_memory


def test_batches(items):
    cfg = make_cfg()
    assert len(loader(cfg, items)) == 5  # the incomplete batch is dropped
    assert len(loader(cfg, items[:1])) == 1  # unless it is the only one
    assert len(loader(cfg, items, is_train=False)) == 6
    batch = next(iter(loader(cfg, items, is_train=False)))
    assert batch["img"].shape == (2, 3, 16, 16) and batch["label"].tolist() == [0, 1]
    assert batch["impath"] == [item.impath for item in items[:2]]
    with pytest.raises(DataError, match="no training images"):
        loader(cfg, [])


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("cache_mb", [0, 1024])
@pytest.mark.parametrize(("is_train", "gone"), [(True, False), (False, False), (False, True)])
def test_an_unreadable_image_is_named_in_one_line(
    items, cores, n_workers, cache_mb, is_train, gone
):
    bad = Path(items[3].impath)
    if gone:
        bad.unlink()
    else:
        bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(MissingFileError if gone else DataError) as caught:
        list(loader(make_cfg(n_workers, cache_mb), items[:10], is_train))
    text = str(caught.value)
    assert text.startswith(f"image {bad} ") and "\n" not in text and "Traceback" not in text


def test_a_pass_after_an_error(items, cores):
    """Workers survive an error; the next pass reads what can be read then."""
    bad = Path(items[3].impath)
    content = bad.read_bytes()
    bad.write_bytes(b"")
    made = loader(make_cfg(2), items, is_train=False)
    with pytest.raises(DataError):
        list(made)
    bad.write_bytes(content)
    assert sum(len(batch["index"]) for batch in made) == 11


def test_workers_stop_at_once_after_an_error(items, cores):
    """torch alone waits five seconds for each of them, see `_keep_queues_until_workers_stop`."""
    Path(items[3].impath).write_bytes(b"")
    made = loader(make_cfg(2), items, is_train=False)
    with pytest.raises(DataError):
        list(made)
    processes = list(made._iterator._workers)
    start = time.perf_counter()
    del made
    gc.collect()
    assert time.perf_counter() - start < 4.5
    assert not any(process.is_alive() for process in processes)


# --- other people's wrappers ----------------------------------------------------------------------


class ForeignWrapper(Dataset):
    """Knows nothing of caches or workers."""

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        self.data_source, self.transform, self.is_train = data_source, transform, is_train

    def __len__(self):
        return len(self.data_source)

    def __getitem__(self, index):
        return {"index": index, "img": torch.rand(2), "label": self.data_source[index].label}


class ForeignSubclass(DatasetWrapper):
    def __getitem__(self, index):
        output = super().__getitem__(index)
        output["twice"] = 2 * output["index"]
        return output


class WholeBatches(ForeignWrapper):
    def __getitems__(self, indices):
        return [{**self[index], "size": len(indices)} for index in indices]


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("wrapper", [ForeignWrapper, ForeignSubclass, WholeBatches])
def test_foreign_wrappers(items, cores, n_workers, wrapper):
    made = loader(make_cfg(n_workers), items, dataset_wrapper=wrapper)
    assert isinstance(made, Loader) and isinstance(made, DataLoader)
    assert type(made.dataset) is wrapper and made.batch_size == 2 and made.drop_last
    for _ in range(2):
        batches = list(made)
        assert len(batches) == 5
        if wrapper is ForeignSubclass:
            assert all(torch.equal(b["twice"], 2 * b["index"]) for b in batches)
        if wrapper is WholeBatches:
            assert all(b["size"].tolist() == [2, 2] for b in batches)
