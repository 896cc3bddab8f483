"""The page on real runs: what it shows, what it says is missing, and that saying so is right."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

import train
from dassl.utils import ConfigError
from dassl.utils.cli import run_cli
from explore import needs
from explore.__main__ import main, page
from explore.runs import find_runs, settings_of
from pages import Chart, Code, Gallery, Page, Prompts, Section, Table, render
from tests.explore.conftest import OWN_NAMES, Runs
from tests.pages.browser import opened
from tests.pages.pieces import Elements
from tests.runs import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shown(runs: Runs) -> Page:
    return page(runs.all, runs.base / "explore.html")


def part(shown: Page, name: str) -> Section:
    return next(section for section in shown.sections if section.name == name)


def kinds(section: Section, kind: type) -> list:
    return [block for block in section.blocks if isinstance(block, kind)]


def record(folder: Path) -> dict:
    return json.loads((folder / "results.jsonl").read_text().splitlines()[-1])


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


# --- what it shows --------------------------------------------------------------------------------


def test_each_section_has_what_it_is_for(shown: Page):
    wanted = {
        "Base and new": Chart,
        "Classes": Table,
        "Training": Chart,
        "Calibration": Chart,
        "Confusions": Table,
        "Mistakes": Gallery,
        "Words": Table,
        "Prompts": Prompts,
        "Runs": Table,
    }
    assert [section.name for section in shown.sections] == list(wanted)
    for name, kind in wanted.items():
        assert kinds(part(shown, name), kind), name


def test_numbers_are_the_records(shown: Page, runs: Runs):
    lines = texts(part(shown, "Runs").blocks[0])
    assert [line[0] for line in lines] == ["zero-shot CLIP", "CoOp", "CoOp"]
    for line, folder in zip(lines, (runs.zero_shot, runs.base, runs.new)):
        assert line[5] == f"{record(folder)['metrics']['accuracy']:.2f}"
    (table,) = kinds(part(shown, "Base and new"), Table)
    coop = next(row for row in table.rows if row[0].text == "CoOp")
    base, new = (record(f)["metrics"]["accuracy"] for f in (runs.base, runs.new))
    assert [c.value for c in coop[1:4]] == pytest.approx(
        [base, new, 2 * base * new / (base + new) if base + new else 0]
    )


def test_each_class_stands_beside_zero_shot(shown: Page, runs: Runs):
    table = kinds(part(shown, "Classes"), Table)[0]
    names = [column.name for column in table.columns]
    assert names == ["class", "images", "zero-shot CLIP", "CoOp", "CoOp − zero-shot"]
    pairs = zip(record(runs.zero_shot)["per_class"], record(runs.base)["per_class"])
    for row, (zero, coop) in zip(table.rows, pairs, strict=True):
        a, b = (100 * one["correct"] / one["total"] for one in (zero, coop))
        assert row[0].text == zero["name"] == coop["name"]
        assert [cell.value for cell in row[2:]] == pytest.approx([a, b, b - a])


def test_a_method_has_one_colour_and_every_legend_entry_is_drawn(shown: Page):
    slots: dict[str, set[int]] = {}
    for section in shown.sections:
        for chart in kinds(section, Chart):
            assert chart.title and 'text-anchor="middle"' in chart.svg
            for label, slot in chart.legend:
                slots.setdefault(label, set()).add(slot)
                assert f'f{slot}"' in chart.svg or f"l{slot}" in chart.svg
    assert slots.keys() == {"zero-shot CLIP", "CoOp"}
    assert all(len(found) == 1 for found in slots.values())


def test_a_curve_has_each_epoch(shown: Page):
    loss, accuracy = kinds(part(shown, "Training"), Chart)
    assert "loss" in loss.title and "accuracy (%)" in accuracy.svg
    assert loss.svg.count("<circle") == 3


def test_mistakes_are_pictures_with_three_guesses(shown: Page):
    gallery = kinds(part(shown, "Mistakes"), Gallery)[0]
    for picture in gallery.pictures:
        data = base64.b64decode(picture.data.partition(",")[2])
        assert max(Image.open(io.BytesIO(data)).size) <= 96
        assert len(picture.lines) == 5
        truth = picture.lines[0].removeprefix("is ").rpartition(" (")[0]
        assert truth not in picture.lines[1], "it is a mistake"
    assert len(render(shown)) < 600_000


def test_prompts_are_the_tokens_that_clip_reads(shown: Page):
    zero, coop = kinds(part(shown, "Prompts"), Prompts)
    assert [text for _, text in zero.prompts[0]][:4] == ["start", "a", "centered", "satellite"]
    assert coop.prompts[0][:6] == [
        ("mark", "start"),
        *(("learned", f"v{i}") for i in range(1, 5)),
        ("word", "annual"),
    ]
    assert coop.prompts[0][-2:] == [("word", "."), ("mark", "end")]


def test_own_data_has_its_folder_s_name_and_nothing_is_obeyed(own: Path, tmp_path: Path):
    text = render(page([str(own)], own / "explore.html"))
    found = Elements(text)
    assert "Prompt learning for CLIP: my <i>birds" in found.texts
    assert not {"b", "i"} & set(found.tags)
    for name in OWN_NAMES:
        assert name in found.texts
    captions = [t for t in found.texts if re.fullmatch(r".+/\d\.png", t)]
    assert captions and {c.split("/")[0] for c in captions} <= set(OWN_NAMES)
    _, said = opened(text, tmp_path)
    assert said == []


def test_the_page_in_a_browser(shown: Page, tmp_path: Path):
    script = "document.querySelectorAll('th button').forEach(b => { b.click(); b.click(); })"
    dom, said = opened(render(shown), tmp_path, script)
    assert said == []
    assert dom.count("<section") == 9 and dom.count('aria-sort="descending"') > 3


def test_seeds_are_averaged_and_settings_are_told_apart(runs: Runs, tmp_path: Path):
    for name, key, value in (("seed2", "SEED: 1", "SEED: 2"), ("more", "LR: 0.02", "LR: 0.5")):
        shutil.copytree(runs.base, tmp_path / name)
        config = tmp_path / name / "config.yaml"
        assert config.read_text().count(key) >= 1
        config.write_text(config.read_text().replace(key, value))
    found = settings_of(find_runs([str(runs.base), str(tmp_path)]))
    assert {one.name: len(one.runs) for one in found} == {"CoOp (LR 0.02)": 2, "CoOp (LR 0.5)": 1}


# --- what is missing ------------------------------------------------------------------------------


def do(code: Code) -> None:
    """Types what a section says."""
    python, program, *arguments = shlex.split(code.command)
    assert (python, program) == ("python", "train.py")
    train.main(train.build_parser().parse_args(arguments))


def test_what_a_section_says_to_type_makes_it_whole(runs: Runs, tmp_path: Path):
    alone = tmp_path / "run"
    shutil.copytree(runs.base, alone)
    before = find_runs([str(runs.base)])[0].predictions.confidence.tolist()
    (alone / "predictions.csv").unlink()
    [one] = find_runs([str(alone)])
    lacking = page([str(alone)], alone / "explore.html")
    for name in ("Calibration", "Confusions", "Mistakes"):
        assert needs.predictions(one) in part(lacking, name).blocks, name
    assert needs.zero_shot(one) in part(lacking, "Classes").blocks
    assert needs.new_classes(one) in part(lacking, "Base and new").blocks
    for need in (needs.predictions, needs.zero_shot, needs.new_classes):
        do(need(one))
    whole = page([str(alone)], alone / "explore.html")
    again = next(r for r in find_runs([str(alone)]) if r.folder == alone).predictions
    assert again.confidence.tolist() == before
    tables = kinds(part(whole, "Base and new"), Table)
    assert [column.name for column in tables[0].columns] == ["method", "base", "new", "H"]
    assert "CoOp − zero-shot" in [c.name for c in kinds(part(whole, "Classes"), Table)[0].columns]
    for name in ("Calibration", "Confusions", "Mistakes", "Base and new"):
        assert not kinds(part(whole, name), Code), name


def test_pictures_that_have_moved(runs: Runs, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(runs.data, moved)
    text = runs.base / "config.yaml"
    copy = tmp_path / "run"
    shutil.copytree(runs.base, copy)
    (copy / "config.yaml").write_text(
        text.read_text().replace(str(runs.data), str(tmp_path / "nowhere"))
    )
    gone = part(page([str(copy)], copy / "x.html"), "Mistakes")
    assert "--root" in kinds(gone, Code)[0].sentence
    there = part(page([str(copy)], copy / "x.html", root=str(moved)), "Mistakes")
    assert not kinds(there, Code)
    assert all(picture.data for picture in kinds(there, Gallery)[0].pictures)


def test_a_method_without_context_says_so(runs: Runs, tmp_path: Path):
    run(runs.data, tmp_path / "probe", trainer="LinearProbe", epoch=1)
    shown = page([str(tmp_path / "probe")], tmp_path / "x.html")
    assert "learns no vectors among words" in kinds(part(shown, "Words"), Code)[0].sentence
    assert render(shown)


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: object) -> int:
    return run_cli(lambda: main([str(a) for a in arguments]))


def test_the_command_writes_one_file(runs: Runs, tmp_path: Path, capsys):
    assert command(*runs.all, "--to", tmp_path / "x.html", "--mistakes", 2) == 0
    assert f"Written to {tmp_path / 'x.html'}" in capsys.readouterr().out
    assert (tmp_path / "x.html").read_text().startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


@pytest.mark.parametrize("kind", ["nowhere", "empty", "begun", "number"])
def test_bad_input_is_one_sentence(kind: str, runs: Runs, tmp_path: Path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    shutil.copy(runs.base / "config.yaml", tmp_path / "begun")
    flags = ("--most", "0") if kind == "number" else ()
    folder = runs.base if kind == "number" else tmp_path / kind
    assert command(folder, "--to", tmp_path / "x.html", *flags) == 2
    told = {"nowhere": "no folder", "empty": "no run", "begun": "yet", "number": "expected 1"}
    said = capsys.readouterr().err
    assert told[kind] in said and said.count("error: ") == 1
    assert not (tmp_path / "x.html").exists()


def test_no_file_of_another_kind_is_replaced(runs, tmp_path: Path):
    target = tmp_path / "results.jsonl"
    target.write_text("mine")
    with pytest.raises(ConfigError, match=r"results.jsonl: a file of another kind is there"):
        main([*runs.all, "--to", str(target)])
    assert target.read_text() == "mine"
