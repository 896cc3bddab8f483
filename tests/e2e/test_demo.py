"""The embedded default shows the method: learned prompts beat hand-written ones by far."""

import subprocess
from pathlib import Path

import pytest

from scripts import demo
from sweep.plan.table import Row
from sweep.report.stats import value
from tests import forks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """Zero-shot CLIP and CoOp on base and all classes, one seed."""
    folder = tmp_path_factory.mktemp("demo")
    cells = [c for c in demo.plan([1]) if c.method.trainer != "CoCoOp" and c.part != "new"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", forks.popen)
        demo.run(cells, folder / "data", folder / "output")
    return {row.labels[0]: row for row in demo.rows_of(cells, folder / "output")}


@pytest.mark.parametrize(("part", "points"), [("base", 3), ("whole", 5)])
def test_coop_gains_over_zero_shot(rows: dict[str, Row], part: str, points: float):
    learned, hand_written = rows["CoOp"].values[part], rows["zero-shot CLIP"].values[part]
    assert (learned.n, hand_written.n) == (1, 1)
    assert learned.mean - hand_written.mean >= points


def test_plan_shares_the_runs_of_the_protocols():
    """Nine numbers come from 21 runs; the new classes test what the base classes taught."""
    cells = demo.plan([1, 2, 3])
    assert {(c.method.label, c.part, len(c.runs)) for c in cells} == {
        (name, part, 1 if name == "zero-shot CLIP" else 3)
        for name in ("zero-shot CLIP", "CoOp", "CoCoOp")
        for part in demo.PARTS
    }
    runs = {run for cell in cells for run in cell.runs}
    assert len(runs) == 21
    for cell in cells:
        if cell.method.learns and cell.part == "new":
            assert all(run.source in runs and run.source.classes == "base" for run in cell.runs)


def test_table_and_chart(tmp_path: Path):
    two = value({1: 90.0, 2: 92.0}, 2)
    rows = [Row((method.label,), dict.fromkeys(demo.PARTS, two)) for method in demo.METHODS]
    rows[0].values["base"] = value({1: 80.0}, 1)
    lines = demo.table(rows).splitlines()
    values = lines[2].removeprefix("zero-shot CLIP").split()
    assert values == ["80.0", "91.0", "±", "1.4", "85.1", "91.0", "±", "1.4"]
    demo.chart(rows, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000
