"""A test set of any size goes through an evaluation without filling memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.runs import ROOT

N_IMAGES, PIXELS = 1200, 112
AS_TENSORS = N_IMAGES * 3 * PIXELS**2 * 4  # bytes: 172 MiB
ALLOWED = 48 * 2**20

# Passes over all images; prints by how many bytes the process grew in each, beyond its start.
EVALUATE = """
import re, sys
from pathlib import Path
import torch
from dassl.data import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from tests.data.helpers_loading import make_cfg
from features.store import FeatureStore
from features.batches import StoredBatches
from features.keys import loader_ids

def peak():  # not getrusage's, which begins at the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status).group(1)) * 1024

torch.set_num_threads(1)
folder, pixels, passes = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
cfg = make_cfg()
cfg.INPUT.SIZE = (pixels, pixels)
items = [Datum(str(path), 0, classname="a") for path in sorted((folder / "images").iterdir())]
transform = build_transform(cfg, is_train=False)
plain = build_data_loader(cfg, data_source=items, tfm=transform, batch_size=32, is_train=False)
encode = lambda images: images.flatten(1)[:, :512].clone()
before = None
for kind in passes:
    batches = plain
    if kind == "stored":
        store = FeatureStore(folder / "store", "space", 2**30)
        batches = StoredBatches(plain, loader_ids(plain), store, encode, torch.device("cpu"))
    seen, held = 0, []
    for number, batch in enumerate(batches):
        if number == 8 and before is None:
            before = peak()
        seen += len(batch["label"])
        features = batch["features"] if kind == "stored" else encode(batch["img"])
        held.append(batch if kind == "held" else None)
    print(seen, peak() - before)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streaming")
    (folder / "images").mkdir()
    Image.effect_noise((128, 128), 50).convert("RGB").save(folder / "one.jpg")
    for i in range(N_IMAGES):
        (folder / "images" / f"{i:05d}.jpg").symlink_to(folder / "one.jpg")
    return folder


def growth(folder: Path, *passes: str) -> list[int]:
    """Evaluates in a process of its own; returns bytes after each pass."""
    command = [sys.executable, "-c", EVALUATE, str(folder), str(PIXELS), *passes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()[-len(passes) :]]
    assert [int(seen) for seen, _ in lines] == [N_IMAGES] * len(passes)
    return [int(grown) for _, grown in lines]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_images(folder):
    plain, held = growth(folder, "plain", "held")
    assert plain < ALLOWED
    assert held > AS_TENSORS / 2, "the test sees what is held"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_encoded_and_kept(folder):
    """Cold: encoded, kept and used; then warm: read from the store."""
    assert max(growth(folder, "stored", "stored")) < ALLOWED
    assert len(list(folder.glob("store/*/*.npy"))) == 2  # written on the way
