"""The embedded default shows the method: learned prompts beat hand-written ones by far."""

from pathlib import Path
from statistics import mean

import pytest

from scripts import demo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> demo.Scores:
    """Zero-shot CLIP and CoOp on base and all classes, three seeds."""
    folder = tmp_path_factory.mktemp("demo")
    runs = demo.plan(folder / "data", folder / "output", seeds=[1, 2, 3])
    return demo.run_all([r for r in runs if r[0] != "CoCoOp" and r[1] != "new"])


@pytest.mark.parametrize(("classes", "points"), [("base", 3), ("all", 5)])
def test_coop_gains_over_zero_shot(scores: demo.Scores, classes: str, points: float):
    learned, hand_written = scores["CoOp", classes], scores["ZeroshotCLIP", classes]
    assert len(learned) == 3
    assert mean(learned) - mean(hand_written) >= points


def test_table_and_chart(tmp_path: Path):
    scores = {(t, c): [90.0, 92.0] for t in demo.METHODS for c in ("base", "new", "all")}
    scores["ZeroshotCLIP", "base"] = [80.0]
    lines = demo.table(scores).splitlines()
    values = lines[2].removeprefix("zero-shot CLIP").split()
    assert values == ["80.0", "91.0", "±", "1.4", "85.1", "91.0", "±", "1.4"]
    demo.chart(scores, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000
