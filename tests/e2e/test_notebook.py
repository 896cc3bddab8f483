"""The notebook runs from top to bottom on the embedded default, and shows what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, make_eurosat

NOTEBOOK = ROOT / "notebooks" / "prompt_learning.ipynb"
KEPT_OUT = ("data", "output")


def cells(kind: str) -> list[str]:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def executed(folder: Path, code: list[str]) -> subprocess.CompletedProcess:
    """Runs cells in a process of their own, typed in; no window opens."""
    env = {"MPLBACKEND": "agg", "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-"],
        input="\n\n".join(code),
        cwd=folder,
        env={**os.environ, **env, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_it_is_kept_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert NOTEBOOK.stat().st_size < 60_000


def test_recipes_of_both_settings_are_there():
    settings = next(cell for cell in cells("code") if "RECIPES = {" in cell)
    named = re.findall(r'"(\w+/[\w+]+)"', settings)
    assert len(named) == 6
    for name in named:
        assert (ROOT / f"configs/trainers/{name}.yaml").is_file(), name


def test_alone_it_asks_where_the_project_is(tmp_path: Path):
    done = executed(tmp_path, cells("code")[:1])
    assert done.returncode == 1
    assert "write the repository's address into REPOSITORY" in done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that runs as the project does, and keeps what the notebook writes."""
    for path in ROOT.iterdir():
        if path.name not in KEPT_OUT and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def table_of(done: subprocess.CompletedProcess) -> dict[str, tuple[float, float]]:
    """Returns method → accuracy on base and on new classes, of all tables that it printed."""
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(.+?) +(\d+\.\d) +(\d+\.\d) +(\d+\.\d)$", done.stdout, flags=re.M)
    table = {method: (float(base), float(new)) for method, base, new, _ in rows}
    assert table.keys() == {
        *("zero-shot", "CoOp", "CoCoOp", "MaPLe"),
        *("trainers: ZeroshotCLIP", "trainers: CoOp", "trainers: CoCoOp"),
    }
    return table


def code_with(**values: str) -> list[str]:
    """Returns the cells with other first values in the cell of settings."""
    code = cells("code")
    settings = next(i for i, cell in enumerate(code) if "RECIPES = {" in cell)
    for name, value in values.items():
        code[settings], n = re.subn(
            f"^({name}, .* = )[^,]*", rf"\g<1>{value}", code[settings], flags=re.M
        )
        assert n == 1, name
    return code


@pytest.mark.slow
def test_from_top_to_bottom(project: Path):
    """With a quarter of the training images, and of the time."""
    done = executed(project, code_with(SHOTS="4"))
    table = table_of(done)
    assert table["zero-shot"] == table["trainers: ZeroshotCLIP"]
    for method in table.keys() - {"zero-shot", "trainers: ZeroshotCLIP"}:
        assert table[method][0] > table["zero-shot"][0] + 5
    assert "are those of the words: True" in done.stdout


@pytest.mark.slow
def test_one_cell_turns_it_to_eurosat(project: Path):
    """Small coloured images in EuroSAT's folders, which need no download any more."""
    make_eurosat(project / "data")
    done = executed(project, code_with(DATASET='"eurosat"', SHOTS="1"))
    table_of(done)
    assert "base: Annual Crop Land" in done.stdout and "training: 5 images" in done.stdout
