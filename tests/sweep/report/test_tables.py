"""Tables from records: the papers' arithmetic, what is missing, formats, and refusals."""

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dassl.utils import ConfigError, MissingFileError
from sweep.cli import main
from sweep.plan.recipes import PAPER_NAMES
from sweep.plan.request import Request
from sweep.plan.run import ROOT, Run
from sweep.plan.tables import TABLES
from sweep.report.charts import bars, charts, curves
from sweep.report.formats import FORMATS, GREEN, RED, terminal
from sweep.report.grid import Grid, build
from sweep.report.html import page
from sweep.report.parse import last_accuracy, parse_folder
from sweep.report.plots import colors_of
from sweep.report.published import FILES, FOLDER, numbers, paper_value
from sweep.report.records import MixedRecordsError
from sweep.report.stats import Value, average_value, harmonic, harmonic_value, value
from tests.sweep.work.test_runner import record

GOLDEN = ROOT / "tests/parity/golden/log_format.json"
DIGITS = Request("base2new", ("ZeroshotCLIP", "CoOp"), ("digits",), (1, 2, 3))


def paper_of(run: Run, published: str) -> float | None:
    """The paper's number for a run of the protocols base2new, crossdataset and domain."""
    method = {"ZeroshotCLIP": "CLIP"}.get(run.trainer, run.trainer)
    split = run.classes
    if split == "all":
        origin = run.source.dataset if run.source else run.dataset
        split = "source" if run.dataset == "imagenet" and origin == "imagenet" else "target"
    shots = 16 if run.shots else 0
    name = PAPER_NAMES[run.dataset]
    return paper_value(published, method, "ViT-B/16", name, shots, split)


def fill(name: str, output: Path, shift: float = 0.0) -> None:
    """Writes records with the paper's numbers, ± 0.3 for seeds 1 and 3."""
    for run in Request(name).runs():
        wanted = paper_of(run, TABLES[name].published)
        if wanted is not None:
            spread = 0.3 * (run.seed - 2) if run.shots else 0.0
            record(run, output, wanted + shift + spread)


def cells(grid: Grid, *labels: str) -> dict[str, Value]:
    return next(row.values for row in grid.rows if row.labels == labels)


# --- reference numbers ----------------------------------------------------------------------------


def groups(table: str) -> dict[tuple, dict[tuple, float]]:
    found: dict[tuple, dict[tuple, float]] = {}
    for (name, method, backbone, dataset, shots, split), number in numbers().items():
        if name == table:
            found.setdefault((method, backbone, shots), {})[dataset, split] = number
    return found


def test_harmonic_means_of_the_paper_recompute():
    checked = 0
    for group in groups("cocoop_table1").values():
        for dataset in {dataset for dataset, _ in group}:
            h = harmonic(group[dataset, "base"], group[dataset, "new"])
            assert h == pytest.approx(group[dataset, "H"], abs=0.0101), dataset
            checked += 1
    assert checked == 3 * 12


@pytest.mark.parametrize(
    ("table", "split", "average"),
    [
        ("cocoop_table1", "base", "base"),
        ("cocoop_table1", "new", "new"),
        ("cocoop_table2", "target", "target_average"),
        ("cocoop_table3", "target", "target_average"),
    ],
)
def test_averages_of_the_paper_recompute(table: str, split: str, average: str):
    for group in groups(table).values():
        each = [n for (d, s), n in group.items() if s == split and d != "Average"]
        assert sum(each) / len(each) == pytest.approx(group["Average", average], abs=0.0101)


def test_sources_ship_with_the_numbers():
    assert (FOLDER / "README.md").is_file()
    for name in FILES:
        with (FOLDER / name).open(encoding="utf-8", newline="") as file:
            assert all(row["source"] for row in csv.DictReader(file)), name


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cocoop-1", "cocoop-2", "cocoop-3"])
def test_complete_from_records(name: str, tmp_path: Path):
    fill(name, tmp_path)
    grid = build(Request(name).table(), tmp_path)
    assert grid.missing == 0
    for v in grid.values():
        assert v.paper is not None
        assert abs(v.difference) < 0.011, "the paper's own numbers come out, averages and H too"
        assert v.within
    assert grid.rows[0].labels[0] == ("Average" if name == "cocoop-1" else grid.rows[0].labels[0])
    assert len(grid.rows) == {"cocoop-1": 36, "cocoop-2": 2, "cocoop-3": 3}[name]


def test_a_difference_beyond_the_spread_is_told(tmp_path: Path):
    fill("cocoop-3", tmp_path, shift=1.5)
    grid = build(Request("cocoop-3").table(), tmp_path)
    assert not any(v.within for v in grid.values())
    text = terminal(grid, color=True)
    assert f"{RED}+1.50" in text
    assert GREEN not in text


def test_missing_runs_are_counted_and_never_averaged_away(tmp_path: Path):
    fill("cocoop-2", tmp_path)
    runs = [r for r in Request("cocoop-2").runs() if r.dataset == "dtd" and r.trainer == "CoOp"]
    (runs[0].folder(tmp_path) / "results.jsonl").unlink()
    grid = build(Request("cocoop-2").table(), tmp_path)
    values = cells(grid, "CoOp")
    assert (values["DTD"].n, values["DTD"].complete) == (2, False)
    assert values["Average"].mean is None
    assert cells(grid, "CoCoOp")["Average"].complete
    text = terminal(grid)
    assert "(2 of 3 seeds)" in text
    assert "Missing, or without all seeds: 2 of 24 values." in text
    for run in runs:
        (run.folder(tmp_path) / "results.jsonl").unlink(missing_ok=True)
    assert "missing" in terminal(build(Request("cocoop-2").table(), tmp_path))


def test_another_setting_does_not_count(tmp_path: Path):
    request = replace(DIGITS, opts=("OPTIM.LR", "0.5"))
    for run in request.runs():
        record(run, tmp_path)
    assert build(request.table(), tmp_path).missing == 0
    assert build(DIGITS.table(), tmp_path).missing == 8


@pytest.mark.parametrize("name", TABLES)
def test_every_table_prints_without_any_record(name: str, tmp_path: Path, capsys):
    for form in (*FORMATS, "html"):
        assert main(["table", name, "--output", str(tmp_path), "--format", form]) == 0
    assert "missing" in capsys.readouterr().out


# --- arithmetic -----------------------------------------------------------------------------------


def test_h_is_that_of_the_averages():
    base, new = value({1: 80.0, 2: 90.0}, 2), value({1: 60.0, 2: 90.0}, 2)
    assert harmonic_value(base, new).mean == pytest.approx(harmonic(85.0, 75.0))
    assert harmonic_value(base, value({1: 60.0}, 2)).mean is None
    assert harmonic(0.0, 0.0) == 0.0


def test_average_needs_every_data_set():
    whole, half = value({1: 80.0, 2: 90.0}, 2), value({1: 60.0}, 2)
    assert average_value([whole, whole]).mean == 85.0
    assert average_value([whole, half]).mean is None
    assert average_value([]).mean is None


def test_spread():
    v = value({1: 80.0, 2: 81.0, 3: 82.0}, 3, paper=84.0)
    assert (v.mean, v.std) == (81.0, 1.0)
    assert v.within, "3.0 is less than 4.303 * 1.0 * sqrt(2 / 3) = 3.51"
    assert not value({1: 80.0, 2: 81.0, 3: 82.0}, 3, paper=85.0).within
    assert value({1: 80.0}, 1, paper=84.0).within is None, "one seed has no spread"
    assert value({1: 80.0}, 1, paper=80.05, exact=True).within


# --- refusals -------------------------------------------------------------------------------------


def test_records_that_differ_in_more_than_the_seed_are_refused(tmp_path: Path):
    runs = [run for run in DIGITS.runs() if run.trainer == "CoOp" and run.source is None]
    for run in runs:
        record(run, tmp_path, precision="fp32" if run.seed < 3 else "fp16", backbone="tiny")
    with pytest.raises(MixedRecordsError) as error:
        build(DIGITS.table(), tmp_path)
    assert "precision: 'fp32' and 'fp16'" in str(error.value)
    assert "backbone" not in str(error.value)


def test_parse_refuses_mixed_settings(tmp_path: Path):
    for seed, lr in ((1, 0.1), (2, 0.2)):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        line = {"status": "finished", "split": "test", "seed": seed, "metrics": {"accuracy": 1.0}}
        (folder / "results.jsonl").write_text(json.dumps(line) + "\n")
        (folder / "config.yaml").write_text(
            f"SEED: {seed}\nOUTPUT_DIR: {folder}\nOPTIM:\n  LR: {lr}\nTRAINER:\n  NAME: CoOp\n"
        )
    with pytest.raises(MixedRecordsError, match=r"OPTIM.LR: 0.1 and 0.2"):
        parse_folder(tmp_path)
    (tmp_path / "seed2" / "config.yaml").write_text(
        (tmp_path / "seed1" / "config.yaml").read_text().replace("SEED: 1", "SEED: 2")
    )
    assert len(parse_folder(tmp_path)) == 2


def test_what_one_seed_does_not_say_may_be_anything(tmp_path: Path):
    """A config.yaml that is lost stops no table; the others are still compared."""
    for seed in (1, 2, 3):
        place = tmp_path / f"seed{seed}"
        place.mkdir()
        content = {"status": "finished", "split": "test", "metrics": {"accuracy": 50.0 + seed}}
        (place / "results.jsonl").write_text(json.dumps(content) + "\n")
        if seed > 1:
            config = f"TRAINER:\n  NAME: CoOp\nOPTIM:\n  LR: 0.{seed}\n"
            (place / "config.yaml").write_text(config)
    with pytest.raises(MixedRecordsError, match=r"LR: 0\.2 and 0\.3"):
        parse_folder(tmp_path)
    (tmp_path / "seed3" / "config.yaml").write_text("TRAINER: [")
    assert len(parse_folder(tmp_path)) == 3


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0, 101.0])
def test_an_accuracy_that_cannot_be_true_is_not_parsed(number: float, tmp_path: Path):
    for seed, accuracy in ((1, 50.0), (2, number)):
        (tmp_path / f"seed{seed}").mkdir()
        content = {"status": "finished", "split": "test", "metrics": {"accuracy": accuracy}}
        (tmp_path / f"seed{seed}" / "results.jsonl").write_text(json.dumps(content) + "\n")
    log = f"=> result\n* accuracy: {number}%\n"
    (tmp_path / "seed2" / "log.txt").write_text("=> result\n* accuracy: 50.0%\n")
    (tmp_path / "seed3").mkdir()
    (tmp_path / "seed3" / "log.txt").write_text(log)
    (tmp_path / "seed1" / ".before").mkdir()
    assert list(parse_folder(tmp_path)) == ["seed1"]


def finished_seed(folder: Path, name: str, *changes: dict) -> None:
    """Writes a seed's folder with a finished evaluation for each of `changes`."""
    (folder / name).mkdir(parents=True)
    content = {"status": "finished", "split": "test", "metrics": {"accuracy": 50.0}, "seed": 1}
    lines = "".join(json.dumps({**content, **change}) + "\n" for change in changes)
    (folder / name / "results.jsonl").write_text(lines)


@pytest.mark.parametrize("copied", [shutil.copytree, lambda a, b: b.symlink_to(a)])
@pytest.mark.parametrize("kind", ["record", "log"])
def test_a_seed_is_not_counted_twice(kind: str, copied, tmp_path: Path):
    """As a copy that somebody keeps beside it, or a link, would be."""
    for seed in (1, 2):
        finished_seed(tmp_path, f"seed{seed}", {"seed": seed})
    if kind == "log":
        for path in tmp_path.glob("*/results.jsonl"):
            path.with_name("log.txt").write_text(f"{path}\n=> result\n* accuracy: 50.0%\n")
            path.unlink()
    assert len(parse_folder(tmp_path)) == 2
    copied(tmp_path / "seed1", tmp_path / "seed1 (copy)")
    with pytest.raises(MixedRecordsError, match=r"seed1 \(copy\).* of one and the same seed"):
        parse_folder(tmp_path)


def test_without_a_seed_records_differ_by_what_they_say(tmp_path: Path):
    for number in (1, 2):
        finished_seed(tmp_path, f"run{number}", {"seed": -1, "time": number})
    assert len(parse_folder(tmp_path)) == 2


def test_it_is_said_which_evaluation_counts_and_what_does_not(tmp_path: Path, capsys):
    finished_seed(tmp_path, "seed1", {"classes": "base"}, {"classes": "new"})
    finished_seed(tmp_path, "seed2", {"seed": 2, "status": "begun"})
    assert list(parse_folder(tmp_path)) == ["seed1"]
    said = capsys.readouterr().out
    assert "several evaluations, of which the last counts: split test, classes new" in said
    assert f"{tmp_path / 'seed2'} holds no finished run" in said


# --- logs of the public implementation ------------------------------------------------------------


def test_parse_reads_upstream_s_logs(tmp_path: Path, capsys):
    runs = json.loads(GOLDEN.read_text())["runs"]
    expected = {"coop_train": 20.0, "coop_train_best_val_per_class": 20.0}
    expected |= {"coop_eval_only_new_classes": 6.7, "zeroshot_eval_only": 10.0}
    for name, accuracy in expected.items():
        assert last_accuracy(runs[name]["lines"]) == accuracy
    cell = tmp_path / "cell"
    for seed, name in enumerate(("coop_train", "coop_resume_to_2x_epochs"), 1):
        (cell / f"seed{seed}").mkdir(parents=True)
        (cell / f"seed{seed}" / "log.txt").write_text("\n".join(runs[name]["lines"]))
    assert main(["parse", str(cell)]) == 0
    assert "accuracy: 23.35% ± 4.74 over 2 seeds" in capsys.readouterr().out
    (tmp_path / "begun" / "seed1").mkdir(parents=True)
    assert main(["parse", str(tmp_path), "--multi"]) == 0
    assert "nothing finished" in capsys.readouterr().out


def test_parse_wants_a_finished_run(tmp_path: Path):
    lines = json.loads(GOLDEN.read_text())["runs"]["coop_train_best_val_per_class"]["lines"]
    cut = lines[: lines.index("Finish training")]
    assert last_accuracy(cut) is None, "results on the val set between epochs do not count"
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "log.txt").write_text("\n".join(cut))
    with pytest.raises(MissingFileError, match="no folder"):
        parse_folder(tmp_path)
    with pytest.raises(MissingFileError, match="does not exist"):
        parse_folder(tmp_path / "nowhere")


# --- formats --------------------------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path: Path) -> Grid:
    for run in DIGITS.runs():
        record(run, tmp_path, 80.0 + run.seed)
    return build(DIGITS.table(), tmp_path)


def test_csv_is_unrounded(tmp_path: Path):
    record(DIGITS.runs()[0], tmp_path, 100 / 3)
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](build(DIGITS.table(), tmp_path)))))
    assert float(rows[0]["mean"]) == 100 / 3
    assert (rows[1]["mean"], rows[1]["n"], rows[1]["seeds"]) == ("", "0", "1")


def test_latex_and_markdown(digits: Grid):
    assert r"82.00 $\pm$ 1.00" in FORMATS["latex"](digits)
    assert FORMATS["latex"](digits).count("&") == 5 * 3
    assert "| digits" in FORMATS["markdown"](digits)


def test_the_page_is_one_file(digits: Grid):
    text = page([digits])
    assert "<svg" in text
    assert not re.search(r'(src|href)="(?!#)', text), "nothing is loaded from elsewhere"
    assert 'data-value="82.000000"' in text
    assert "seed 1: 81.00, seed 2: 82.00" in text


def test_charts(digits: Grid, tmp_path: Path):
    drawn = bars(digits)
    assert [label for label, _ in drawn.legend] == ["zero-shot CLIP", "CoOp"]
    assert drawn.svg.count("<rect") == 8, "base, new, H and all of each"
    request = Request("fewshot", ("ZeroshotCLIP", "CoOp"), ("digits", "eurosat"), (1, 2), (1, 4))
    for run in request.runs():
        record(run, tmp_path, 70.0 + run.shots)
    grid = build(request.table(), tmp_path)
    assert grid.columns == ("0", "1", "4")
    assert [row.labels[0] for row in grid.rows[:2]] == ["Average", "Average"]
    assert cells(grid, "Average", "CoOp (M=16, end)")["4"].mean == 74.0
    assert curves(grid) == curves(grid), "the same picture, the same bytes"
    assert [chart.title for chart in charts(grid)] == ["Average", "digits", "EuroSAT"]
    for chart in charts(grid):
        assert "training images per class" in chart.svg and "accuracy (%)" in chart.svg
        assert len({slot for label, slot in chart.legend if "paper" not in label}) == 2


def test_a_method_has_the_same_colour_in_every_chart():
    labels = {
        table: {row.labels[1] for row in build(Request(table).table(), Path("none")).rows}
        for table in ("base2new", "fewshot", "coop-fig3", "family")
    }
    chosen = {table: colors_of(sorted(methods)) for table, methods in labels.items()}
    assert chosen["base2new"]["zero-shot CLIP"] == chosen["coop-fig3"]["zero-shot CLIP"]
    assert chosen["base2new"]["CoOp"] == chosen["fewshot"]["CoOp (M=16, end)"]
    assert chosen["fewshot"]["Linear probe CLIP"] == chosen["coop-fig3"]["Linear probe CLIP"]
    for colors in chosen.values():
        assert len(set(colors.values())) == len(colors), "two methods never share one"
    assert len(colors_of([f"method {i}" for i in range(30)])) == 30


def test_report_needs_a_sweep(tmp_path: Path, capsys):
    with pytest.raises(ConfigError, match="no sweep was started"):
        main(["report", "--output", str(tmp_path)])
    DIGITS.save(tmp_path)
    assert main(["report", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
