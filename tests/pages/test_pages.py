"""The page as text: nothing is loaded, names are escaped, colours can be told, all is labelled."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from pages import Bars, Line, bar_chart, line_chart
from pages.charts import ticks
from pages.colors import DARK, LIGHT, ROLES, contrast
from tests.pages.pieces import Elements, page_of

NAMES = (
    '<b>&"',
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "{{ 7 * 7 }}{% endblock %}",
    "</style></script></table>",
    "javascript:alert(1)",
    "two\nlines",
    "right \u202eto left",
    "half a letter \udc80",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_and_not_obeyed(name: str):
    text = page_of(name)
    found, plain = Elements(text), Elements(page_of())
    assert found.tags == plain.tags
    assert [(t, k) for t, k, _ in found.attributes] == [(t, k) for t, k, _ in plain.attributes]
    assert not [key for _, key, _ in found.attributes if key.startswith("on")]
    assert text.count("7 * 7") == text.count("{{ 7 * 7 }}")
    assert "\u202e" not in text
    text.encode()


def test_names_come_back_as_they_are():
    found = Elements(page_of('<b>&"'))
    assert found.texts.count('<b>&"') > 10
    assert found.values("alt") == ['<b>&"']


def test_nothing_is_loaded():
    found = Elements(page_of())
    assert all(value.startswith("data:") for value in found.values("src"))
    assert set(found.values("href")) == {"#t0", "x/y.png"}
    assert not re.search(r"@import|url\(|https?:", page_of())


def test_a_column_and_an_empty_cell_are_explained():
    text = page_of()
    assert "<dt>n</dt><dd>How many.</dd>" in text
    assert "<dt>an empty cell</dt><dd>Nobody knows cat.</dd>" in text


def test_what_is_seen_is_also_said():
    """Headings in order, one of the first level; pictures, charts and what scrolls have a name."""
    text = page_of()
    levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    for tag in re.findall(r'<(?:img|[^>]*role="(?:img|region)")[^>]*>', text):
        assert re.search(r'(alt|aria-label)="[^"]+"', tag), tag
    for scrolls in re.findall(r'<[^>]*role="region"[^>]*>', text):
        assert 'tabindex="0"' in scrolls
    assert text.count("<th ") == text.count('scope="col"') == text.count("</button></th>")
    assert '<html lang="en">' in text and 'name="viewport"' in text


class Balanced(HTMLParser):
    VOID = ("meta", "img", "input", "br", "line", "rect", "circle", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_every_element_is_closed():
    parser = Balanced()
    parser.feed(page_of())
    assert not parser.open


# --- colours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
def test_colours_have_the_contrast_of_wcag_aa(dark: bool):
    colors = {name: pair[dark] for name, pair in ROLES.items()}
    for role in ("text", "soft", "link", "good", "bad", "gap"):
        for ground in ("ground", "raised"):
            assert contrast(colors[role], colors[ground]) >= 4.5, (role, ground)
    slots = DARK if dark else LIGHT
    assert len(set(slots)) == len(LIGHT)
    for color in slots:
        assert contrast(color, colors["ground"]) >= 3, color


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


# --- charts ---------------------------------------------------------------------------------------


def test_no_legend_without_a_bar():
    series = [Bars("a", 0, [50.0, 60.0], [1.0, None]), Bars("b", 1, [None, None])]
    chart = bar_chart("title", ["base", "new"], series, "accuracy (%)")
    assert chart.legend == [("a", 0)]
    assert chart.svg.count("<rect") == 2
    assert chart.svg.count('class="spread"') == 1
    lines = [Line("a", 0, [(1, 1)]), Line("b", 1, [])]
    assert line_chart("title", "epoch", "loss", lines).legend == [("a", 0)]


def test_bars_are_as_high_as_their_numbers():
    values = [25.0, 50.0, 100.0]
    chart = bar_chart("title", ["a", "b", "c"], [Bars("x", 0, values)], "accuracy (%)")
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([\d.]+)"', chart.svg)]
    assert heights[1] / heights[0] == pytest.approx(2, abs=0.02)
    assert heights[2] / heights[0] == pytest.approx(4, abs=0.02)
    assert [t in chart.svg for t in (">25.0<", ">50.0<", ">100.0<", ">accuracy (%)<")] == [True] * 4


def test_many_bars_keep_their_width_and_stay_inside():
    series = [Bars(f"m{i}", i % 9, [50.0] * 4) for i in range(8)]
    chart = bar_chart("title", list("abcd"), series, "accuracy (%)")
    ends = re.findall(r'<rect[^>]* x="([\d.]+)"[^>]* width="([\d.]+)"', chart.svg)
    assert len(ends) == 32
    assert min(float(width) for _, width in ends) > 28, "a number fits on top"
    assert max(float(x) + float(w) for x, w in ends) <= chart.width


def test_points_lie_where_their_numbers_are():
    chart = line_chart("title", "epoch", "loss", [Line("a", 0, [(0, 0), (1, 10), (2, 5)])])
    points = [p.split(",") for p in re.search(r'points="([^"]+)"', chart.svg)[1].split()]
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in points]
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.2)
    assert (y0 - y2) == pytest.approx((y0 - y1) / 2, abs=0.2)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.2, 1.13), (-3, 2), (5, 5), (0, 0), (1e-6, 3e-6), (99, 100)]
)
def test_ticks_are_round_and_reach_around(low: float, high: float):
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high
    assert 2 <= len(found) <= 9
    steps = {round((b - a) / (found[1] - found[0]), 6) for a, b in pairwise(found)}
    assert steps == {1.0}
    assert all(math.isfinite(tick) for tick in found)
