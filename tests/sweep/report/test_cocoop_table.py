"""CoCoOp's table 1 from beginning to end: eleven data sets, all 154 runs, the printed table.

Real: the command and its worker processes (forked), the paper's plan and recipes, training,
checkpoints, evaluation and records of every run. Small: one image a class and part, of noise, in
the data sets' official layouts with their true class names (of ImageNet's and SUN397's, the first
100); the embedded CLIP on 32 x 32 pixels; one epoch; batches of 32. So the accuracies mean nothing
and are not looked at.
"""

import csv
import io
import subprocess
from pathlib import Path

import pytest

from sweep.cli import main
from sweep.plan.recipes import BENCHMARK
from sweep.plan.request import Request
from sweep.work.folder import RunFolder
from tests.datasets import fixtures
from tests.e2e.test_all_datasets import CONFIGS, N_FEW, make_few
from tests.forks import start_sweep

pytestmark = pytest.mark.slow

SMALL = ("MODEL.BACKBONE.NAME", "tiny", "INPUT.SIZE", "(32, 32)", "OPTIM.MAX_EPOCH", "1")
OPTS = (*SMALL, "DATALOADER.TRAIN_X.BATCH_SIZE", "32", "USE_CUDA", "False")
REQUEST = Request("cocoop-1", opts=OPTS)
CELLS = (11 + 1) * 3 * 3  # data sets and their average, methods, columns


def shorten(sun397: Path) -> None:
    """Leaves the first classes: CoCoOp encodes images × classes prompts."""
    kept = (sun397 / "ClassName.txt").read_text().splitlines()[:N_FEW]
    for name in ("ClassName.txt", "Training_01.txt", "Testing_01.txt"):
        lines = (sun397 / name).read_text().splitlines()
        lines = [line for line in lines if line in kept or line.rpartition("/")[0] in kept]
        (sun397 / name).write_text("\n".join(lines))


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished sweep."""
    folder = tmp_path_factory.mktemp("cocoop-1")
    for name, config in CONFIGS.items():
        if config == "imagenet":
            make_few(name, folder / "data")
        elif config in BENCHMARK:
            fixtures.make(name, folder / "data", per_class=1)
    shorten(folder / "data/sun397")
    place = ["--root", str(folder / "data"), "--output", str(folder / "out")]
    how = ["--jobs", "2", "--workers", "1", "--opts", *OPTS]
    heard = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = start_sweep("run", "cocoop-1", *place, *how, **heard)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said[-4000:]
    assert "All 154 runs are finished." in said
    return folder / "out"


@pytest.fixture
def table(output: Path, capsys: pytest.CaptureFixture):
    def printed(form: str = "terminal") -> str:
        flags = ["--output", str(output), "--format", form]
        assert main(["table", "cocoop-1", *flags, "--opts", *OPTS]) == 0
        return capsys.readouterr().out

    return printed


def test_the_table_is_complete(output: Path, table):
    assert len(REQUEST.runs()) == 154
    assert all(RunFolder(run, output).record() for run in REQUEST.runs())
    text = table()
    assert "missing" not in text
    assert "seeds)" not in text, "no cell lacks a seed"
    cells = list(csv.DictReader(io.StringIO(table("csv"))))
    assert len(cells) == CELLS
    for cell in cells:
        assert cell["n"] == cell["seeds"] == ("1" if cell["method"] == "zero-shot CLIP" else "3")
        assert 0 <= float(cell["mean"]) <= 100
        assert cell["paper"], "the paper's number stands beside it"


def row_of(text: str, dataset: str) -> str:
    """Returns CoCoOp's line for a data set."""
    (row,) = [x for x in text.splitlines() if x.startswith(f"{dataset} ") and "CoCoOp" in x]
    return row


def test_what_is_removed_is_missing_and_counted(output: Path, table, capsys):
    runs = [
        run
        for run in REQUEST.runs()
        if (run.dataset, run.trainer, run.classes) == ("dtd", "CoCoOp", "new")
    ]
    paths = [run.folder(output) / "results.jsonl" for run in runs]
    kept = {path: path.read_bytes() for path in paths}
    try:
        paths[0].unlink()
        text = table()
        # New and H, of DTD and of the average: none of them is made from two seeds but new itself.
        assert f"Missing, or without all seeds: 4 of {CELLS} values." in text
        assert row_of(text, "DTD").count("(2 of 3 seeds)") == 1
        assert row_of(text, "DTD").count("missing") == 1
        assert row_of(text, "Average").count("missing") == 2
        place = ["--output", str(output), "--root", str(output.parent / "data")]
        main(["run", "cocoop-1", *place, "--dry-run", "--opts", *OPTS])
        assert "153 are finished; 1 to do" in capsys.readouterr().out
        for path in paths:
            path.unlink(missing_ok=True)
        assert row_of(table(), "DTD").count("missing") == 2
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
