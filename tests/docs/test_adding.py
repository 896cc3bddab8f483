"""The files of docs/adding.md, written into a copy of the repository, do what the page says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.docs.pages import blocks, commands
from tests.runs import ROOT

PAGE = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
NEEDED = ("dassl", "datasets", "encoders", "features", "trainers", "prompts", "configs", "compat")
SPECIES = ("blue jay", "crow", "robin", "wren")
IN_ONE_PROCESS = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    print("$", *words)
    run = runpy.run_module if words[0] == "-m" else runpy.run_path
    sys.argv = words[words[0] == "-m" :]
    try:
        run(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, (words, stop.code)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what runs, with the page's files and images for its dataset."""
    for name in NEEDED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "predict.py", "clip.py"):
        shutil.copy(ROOT / name, tmp_path)
    for block in blocks(PAGE):
        if block.title:
            assert not (tmp_path / block.title).exists(), f"{block.title} is no new file"
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    images = tmp_path / "data/my_birds/images"
    images.mkdir(parents=True)
    rng, lines = np.random.RandomState(0), ["file,species,part"]
    for i in range(40):
        Image.fromarray(rng.randint(0, 256, (32, 32, 3), dtype=np.uint8)).save(images / f"{i}.png")
        part = ("train", "train", "train", "train", "val", "test")[i // 4 % 6]
        lines.append(f"{i}.png,{SPECIES[i % 4]},{part}")
    (images.parent / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_what_the_page_says(clone: Path):
    typed = [w for b in blocks(PAGE) if b.language == "bash" for w in commands(b.text)]
    assert [words[1] for words in typed] == ["train.py", "-m", "train.py", "predict.py"]
    calls = [[*w[1:], *(("OPTIM.MAX_EPOCH", "1") if "train.py" in w else ())] for w in typed]
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, json.dumps(calls)],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.split("$ ")[1:]
    assert "Loading dataset: MyBirds" in said[0] and "It runs." in said[1]
    assert "Loading trainer: SmoothCoOp" in said[2] and "blue jay" in said[3]
