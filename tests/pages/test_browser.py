"""The page in a browser: it sorts, it escapes, it fits a phone, and the console stays silent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pages import Cell, Column, Page, Section, Table, render
from tests.pages.browser import opened
from tests.pages.pieces import page_of

pytestmark = pytest.mark.slow
# Answers go into the page's title, as JSON.
ORDER = """
const order = () => [...document.querySelectorAll('tbody tr')].map(r => r.cells[0].textContent);
const heads = [...document.querySelectorAll('th button')], found = [order()];
for (const head of [1, 1, 0, 0]) { heads[head].click(); found.push(order()); }
found.push([...document.querySelectorAll('th')].map(th => th.getAttribute('aria-sort')));
document.title = JSON.stringify(found);
"""
KEYBOARD = """
for (const folded of document.querySelectorAll('details')) folded.open = true;
const stops = [...document.querySelectorAll('a, button, input, summary, [tabindex]')];
const reached = e => { e.focus(); return document.activeElement === e; };
document.title = JSON.stringify(stops.map(reached));
"""
WIDTH = """
const frame = document.createElement('iframe');
frame.style.cssText = 'width: 360px; height: 600px; border: 0';
frame.srcdoc = document.documentElement.outerHTML.replace(/<script[^]*?<\\/script>/g, '');
document.title = 'waiting';
frame.onload = () => {
  const inner = frame.contentDocument.documentElement;
  document.title = JSON.stringify([inner.scrollWidth, inner.clientWidth]);
};
document.body.append(frame);
"""


def answer(dom: str):
    return json.loads(re.search(r"<title>(.*?)</title>", dom)[1].replace("&amp;", "&"))


def test_headings_sort_numbers_as_numbers_and_put_empty_cells_last(tmp_path: Path):
    dom, said = opened(page_of(), tmp_path, ORDER)
    start, up, down, names, reverse, marks = answer(dom)
    assert said == []
    assert start == ["cat", "bear", "ant"]
    assert up == ["bear", "cat", "ant"], "9.5 comes before 80.1"
    assert down == ["cat", "bear", "ant"], "the empty cell stays last"
    assert names == ["ant", "bear", "cat"]
    assert reverse == ["cat", "bear", "ant"]
    assert marks == ["descending", None]


LONG = """
const box = document.querySelector('.tall'), heads = [...box.querySelectorAll('th')];
heads[1].querySelector('button').click();
box.scrollTop = box.scrollHeight; box.scrollLeft = box.scrollWidth;
const outer = box.getBoundingClientRect(), place = e => e.getBoundingClientRect();
const first = box.querySelector('tbody tr').cells, folded = document.querySelector('details.table');
const hidden = !folded.querySelector('td').checkVisibility();
folded.open = true;
document.title = JSON.stringify([
  outer.height < 700, Math.round(place(heads[1]).top - outer.top),
  Math.round(place(first[0]).left - outer.left), first[1].textContent,
  hidden, folded.querySelector('td').checkVisibility(),
]);
"""


def test_a_long_table_keeps_its_headings_and_a_folded_one_opens(tmp_path: Path):
    columns = [Column("class"), *(Column(f"number {k}", number=True) for k in range(30))]
    rows = [
        [
            Cell(f"class {i}"),
            *(Cell(f"{(i * 7 + k) % 1000:,}", (i * 7 + k) % 1000) for k in range(30)),
        ]
        for i in range(1000)
    ]
    blocks = [Table("long", columns, rows), Table("folded", columns, rows[:2], folded=True)]
    html = render(Page("title", "about", [Section("a", "a", blocks)]))
    dom, said = opened(html, tmp_path, LONG)
    assert said == []
    assert answer(dom) == [True, 0, 0, "0", True, True]
    assert "long (1,000 rows, which scroll)" in dom


@pytest.mark.parametrize("name", ['<b>&"', "<script>document.title = 'obeyed'</script>"])
def test_a_name_is_shown_and_not_obeyed(name: str, tmp_path: Path):
    script = "document.title = JSON.stringify(document.querySelector('td').textContent)"
    dom, said = opened(page_of(name), tmp_path, script)
    assert said == []
    title = re.search(r"<title>(.*?)</title>", dom)[1]
    assert title == json.dumps(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def test_the_keyboard_reaches_everything(tmp_path: Path):
    dom, said = opened(page_of(), tmp_path, KEYBOARD)
    assert said == []
    assert len(answer(dom)) > 6 and all(answer(dom))


def test_nothing_sticks_out_on_a_phone(tmp_path: Path):
    long = "a_class_name_without_any_blank_that_is_longer_than_a_phone_is_wide_by_far"
    dom, said = opened(page_of(long), tmp_path, WIDTH)
    assert said == []
    inner, seen = answer(dom)
    assert inner == seen


def test_an_error_would_be_seen(tmp_path: Path):
    dom, said = opened(page_of(), tmp_path, "nothing.there()")
    assert "ERROR" in dom
    assert any("nothing is not defined" in line for line in said)
