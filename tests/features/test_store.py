"""Stored features: found again when nothing changed, computed anew when anything did."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import features.__main__ as command
from dassl.utils.results import read_records
from features import store as feature_store
from features.store import FeatureStore, clear, evict, make_id, stored_files
from tests.forks import forked
from tests.runs import make_eurosat, run

CPU = torch.device("cpu")
COCOOP = {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}


def ids(n: int, start: int = 0) -> list[bytes]:
    return [make_id("image", i) for i in range(start, start + n)]


class Computed:
    """Gives row i the values i, i + 0.5 and notes what was asked for."""

    def __init__(self, start: int = 0, block: int = 3) -> None:
        self.asked: list[int] = []
        self.start, self.block = start, block

    def __call__(self, positions: list[int]):
        self.asked += positions
        rows = np.array([[self.start + i, self.start + i + 0.5] for i in positions], np.float32)
        for first in range(0, len(rows), self.block):
            yield rows[first : first + self.block]


def fetch(store: FeatureStore, wanted: list[bytes], compute, size: int = 4) -> np.ndarray:
    return np.concatenate(list(store.stream(wanted, compute, size)))


def expected(n: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + n, dtype=np.float32)[:, None] + np.float32([0, 0.5])


def opened(folder: Path, space: str = "space", max_bytes: int = 2**20) -> FeatureStore:
    return FeatureStore(folder, space, max_bytes)


# --- the store ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 100])
def test_computed_once(tmp_path, size):
    for asked in (list(range(10)), []):
        compute = Computed()
        got = fetch(opened(tmp_path), ids(10), compute, size)
        np.testing.assert_array_equal(got, expected(10))
        assert compute.asked == asked
    blocks = list(opened(tmp_path).stream(ids(10), compute, size))
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)


def test_only_what_is_missing_in_any_order(tmp_path):
    fetch(opened(tmp_path), ids(4, 3), Computed(3))
    compute, wanted = Computed(), ids(10)
    got = fetch(opened(tmp_path), wanted, compute)
    np.testing.assert_array_equal(got, expected(10))
    assert compute.asked == [0, 1, 2, 7, 8, 9]
    np.testing.assert_array_equal(fetch(opened(tmp_path), wanted[::-1], None), expected(10)[::-1])


def test_an_image_twice_in_a_list(tmp_path):
    for _ in range(2):
        got = fetch(opened(tmp_path), [*ids(2), *ids(2)], lambda p: iter([expected(2)] * 2))
        np.testing.assert_array_equal(got, np.concatenate([expected(2)] * 2))


def test_spaces_do_not_mix(tmp_path):
    fetch(opened(tmp_path, "a"), ids(3), Computed())
    compute = Computed()
    fetch(opened(tmp_path, "b"), ids(3), compute)
    assert compute.asked == [0, 1, 2]


def test_rows_are_written_on_the_way(tmp_path, monkeypatch):
    """An error, or a consumer who stops, costs nothing that was computed."""
    monkeypatch.setattr(feature_store, "ROWS_PER_FILE", 5)

    def fails(positions: list[int]):
        yield from Computed()(positions[:9])
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fetch(opened(tmp_path), ids(12), fails)
    stops = opened(tmp_path).stream(ids(12), Computed(block=2), 1)
    for _ in range(10):  # the tenth is the first that is computed
        next(stops)
    stops.close()
    compute = Computed()
    np.testing.assert_array_equal(fetch(opened(tmp_path), ids(12), compute), expected(12))
    assert compute.asked == [11]


DAMAGE = {
    "truncated": lambda b: b[: len(b) // 2],
    "cut in its ids": lambda b: b[:140],
    "empty": lambda b: b"",
    "a bit flipped": lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:],
    "something else": lambda b: b"PK" + b[2:],
}


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_file(tmp_path, how, capsys):
    fetch(opened(tmp_path), ids(4), Computed())
    fetch(opened(tmp_path), ids(4, 4), Computed(4))
    (path, *_) = (path for path, _ in stored_files(tmp_path))
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    compute = Computed()
    np.testing.assert_array_equal(fetch(opened(tmp_path), ids(8), compute), expected(8))
    assert compute.asked in ([0, 1, 2, 3], [4, 5, 6, 7])
    assert "damaged" in capsys.readouterr().out
    fetch(opened(tmp_path), ids(8), None)  # whole again


def test_file_thrown_out_while_open(tmp_path):
    store = opened(tmp_path)
    fetch(store, ids(4), Computed())
    fetch(store, ids(4), None)
    clear(tmp_path)
    np.testing.assert_array_equal(fetch(store, ids(4), None), expected(4))  # still mapped
    compute = Computed()
    fetch(opened(tmp_path), ids(4), compute)
    assert compute.asked == [0, 1, 2, 3]


def test_oldest_goes_first(tmp_path):
    for number in range(4):
        fetch(opened(tmp_path, f"space{number % 2}"), ids(8, 8 * number), Computed(8 * number))
        for path, _ in stored_files(tmp_path)[-1:]:
            os.utime(path, (number, number))
    fetch(opened(tmp_path, "space0"), ids(8), None)  # used, so no longer the oldest
    size = stored_files(tmp_path)[0][1].st_size
    evict(tmp_path, 2 * size)
    left = stored_files(tmp_path)
    assert len(left) == 2 and left[0][1].st_mtime == 3 and left[1][1].st_mtime > 4
    fetch(opened(tmp_path, max_bytes=size), ids(8, 100), Computed(100))
    assert sum(stat.st_size for _, stat in stored_files(tmp_path)) <= size


def test_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        store = opened(tmp_path / "file" / "folder")
        np.testing.assert_array_equal(fetch(store, ids(5), Computed(block=1)), expected(5))
    assert capsys.readouterr().out.count("features are not kept") == 2  # once each


def test_left_by_a_kill(tmp_path):
    fetch(opened(tmp_path), ids(4), Computed())
    part = tmp_path / "space" / ".abc.npy.x.part"
    part.write_bytes(b"half")
    evict(tmp_path, 2**20)
    assert part.exists(), "another process may be writing it"
    os.utime(part, (1, 1))
    evict(tmp_path, 2**20)
    assert not part.exists()


def fill(folder: Path, log: Path, pause: float) -> None:
    """Asks a store for twelve rows, four a file, and notes which had to be computed."""
    feature_store.ROWS_PER_FILE = 4  # in a process of its own

    def compute(positions):
        for i in positions:
            with log.open("a") as file:
                file.write(f"{i}\n")
            time.sleep(pause)
            yield np.float32([[i, i + 0.5]])

    store = FeatureStore(folder, "space", 2**20)
    wanted = [make_id("image", i) for i in range(12)]
    rows = np.concatenate(list(store.stream(wanted, compute, 4)))
    assert (rows[:, 0] == np.arange(12)).all(), rows


def start(folder: Path, log: Path, pause: float) -> subprocess.Popen:
    return forked(lambda: fill(folder, log, pause))


def test_two_processes_compute_once(tmp_path):
    log = tmp_path / "log"
    processes = [start(tmp_path / "store", log, 0.02) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert sorted(map(int, log.read_text().split())) == list(range(12))


@pytest.mark.slow
def test_killed_while_computing(tmp_path):
    """Its files stay, its lock is given back, the rest is computed."""
    log, store = tmp_path / "log", tmp_path / "store"
    process = start(store, log, 0.2)
    while not log.exists() or len(log.read_text().split()) < 6:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    log.unlink()
    assert start(store, log, 0).wait(120) == 0
    assert list(map(int, log.read_text().split())) == list(range(4, 12))


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path) -> Path:
    return make_eurosat(tmp_path / "data")


def store_in(folder: Path) -> tuple[str, ...]:
    return ("DATASET.NUM_SHOTS", "2", "MODEL.FEATURES.FOLDER", str(folder))


@pytest.mark.slow
def test_sweep_encodes_each_test_image_once(data, tmp_path, encoded):
    """Zero-shot, CoOp and CoCoOp, base to new, over three seeds; then a linear probe."""
    n_train, n_test = 10, 15
    trained = 0
    for seed in (1, 2, 3):
        for name, kwargs in (
            ("ZeroshotCLIP", {"trainer": "ZeroshotCLIP"}),
            ("CoOp", {}),
            ("CoCoOp", COCOOP),
        ):
            out = tmp_path / f"{name}{seed}"
            kwargs = {**kwargs, "seed": seed, "train_batch_size": 5}
            run(data, out, *store_in(tmp_path / "store"), epoch=2, **kwargs)
            if name != "ZeroshotCLIP":
                kwargs |= {"model_dir": str(out), "load_epoch": 2}
                trained += 2 * n_train
            flags = {"eval_only": True, "subsample_classes": "new"}
            run(data, out / "new", *store_in(tmp_path / "store"), **flags, **kwargs)
    assert sum(encoded) == trained + 2 * n_test
    assert len(list((tmp_path / "store").iterdir())) == 1  # one space
    noted = [next(read_records(p))["images_encoded"] for p in tmp_path.rglob("results.jsonl")]
    assert sorted(noted) == [0] * 16 + [n_test] * 2
    encoded.clear()
    run(data, tmp_path / "probe", *store_in(tmp_path / "store"), trainer="LinearProbe")
    (record,) = read_records(tmp_path / "probe/results.jsonl")
    assert record["images_encoded"] == 0
    assert sum(encoded) == 2 * n_train  # two shots and two validation images a class, unaugmented
    run(data, tmp_path / "again", *store_in(tmp_path / "store"), trainer="LinearProbe")
    assert sum(encoded) == 2 * n_train


@pytest.mark.parametrize(
    "trainer", ["ZeroshotCLIP", "ZeroshotCLIP2", "LinearProbe", "CoOp", "CoCoOp"]
)
def test_same_results_as_without_a_store(data, tmp_path, encoded, trainer):
    flags = {**(COCOOP if trainer == "CoCoOp" else {}), "trainer": trainer}
    options = {
        "off": ("DATASET.NUM_SHOTS", "2", "MODEL.FEATURES.STORE_MB", "0"),
        "cold": store_in(tmp_path / "store"),
        "warm": store_in(tmp_path / "store"),
    }
    records = {}
    for name, opts in options.items():
        run(data, tmp_path / name, *opts, epoch=1, **flags)
        (records[name],) = read_records(tmp_path / name / "results.jsonl")
    for name in ("cold", "warm"):
        for key in ("metrics", "per_class", "total", "correct", "config_digest"):
            assert records[name][key] == records["off"][key]
    assert [r["images_encoded"] for r in records.values()] == [15, 15, 0]


def test_unreadable_test_image_is_named(data, tmp_path):
    from dassl.utils import DataError

    run(data, tmp_path / "a", *store_in(tmp_path / "store"), trainer="ZeroshotCLIP")
    for path in (data / "eurosat/2750/Forest").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="Forest_"):
        run(data, tmp_path / "b", *store_in(tmp_path / "store"), trainer="ZeroshotCLIP")


def test_command(tmp_path, capsys):
    fetch(opened(tmp_path, "space-fp32"), ids(4), Computed())
    command.main(["status", "--folder", str(tmp_path)])
    out = capsys.readouterr().out
    assert "1 file, 0.0 MiB" in out and "space-fp32" in out
    command.main(["clear", "--folder", str(tmp_path)])
    assert "deleted 1 file," in capsys.readouterr().out
    assert not stored_files(tmp_path)
    command.main(["status", "--folder", str(tmp_path)])
    assert "0 files" in capsys.readouterr().out
