"""A sweep's folder: its tables stand on the page, in the words and colours of its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from explore.__main__ import page
from explore.accuracy import base_and_new
from explore.runs import find_runs, settings_of
from pages import Chart, Code, Table, render
from sweep.cli import main
from sweep.plan.request import Request
from sweep.work.execute import Job, execute

pytestmark = pytest.mark.slow
OPTS = ("OPTIM.MAX_EPOCH", "1")
REQUEST = Request("base2new", ("ZeroshotCLIP", "CoOp"), ("digits",), (1, 2), (1,), opts=OPTS)


def test_a_sweep_s_folder(tmp_path: Path):
    output = tmp_path / "sweep"
    for run in REQUEST.runs():
        assert execute(Job(run, output, str(tmp_path / "data"))).state == "done"
    REQUEST.save(output)
    shown = page([str(output)], output / "explore.html")
    table = next(section for section in shown.sections if section.name == "base2new")
    settings = settings_of(find_runs([str(output)]))
    ours = base_and_new(settings)
    assert {one.test[1] for one in settings} == {"base", "new", "all, after base"}
    assert "Base and new" not in [section.name for section in shown.sections], "once is enough"
    assert "Made with: python -m sweep run base2new" in table.notes[-1]

    def rows(section) -> dict[str, list[str]]:
        (found,) = [block for block in section.blocks if isinstance(block, Table)]
        names = [column.name for column in found.columns]
        places = [names.index(name) for name in ("method", "base", "new", "H")]
        return {row[places[0]].text: [row[i].text for i in places[1:]] for row in found.rows}

    assert rows(table) == rows(ours), "the same numbers from the same records"
    assert rows(ours).keys() == {"zero-shot CLIP", "CoOp"}
    legends = [
        set(block.legend)
        for section in (table, ours)
        for block in section.blocks
        if isinstance(block, Chart)
    ]
    assert len(legends) == 2 and legends[0] == legends[1]
    calibration = next(section for section in shown.sections if section.name == "Calibration")
    said = [block.sentence for block in calibration.blocks if isinstance(block, Code)]
    assert "--error-analysis" in said[0]
    assert main(["report", "--output", str(output)]) == 0
    report = (output / "report.html").read_text()
    style = report[report.index("<style>") : report.index("</style>")]
    assert style in render(shown), "one template, one look"
