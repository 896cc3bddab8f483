"""Charts as SVG: lines and grouped bars, in the page's colours, readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pages.parts import Chart
from pages.render import shown

HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 260, 52, 12, 14, 44  # in units of the drawing
NARROW = 400  # width that a phone shows
BAR, GAP = 34, 30  # width of a bar, space between groups


@dataclass(frozen=True)
class Line:
    """Points joined by a line.

    Attributes:
        slot: of its colour.
        points: x, y in ascending x.
        spreads: half the length of each point's error bar; (): none.
        dashed: whether the line is dashed and its points hollow.
    """

    label: str
    slot: int
    points: Sequence[tuple[float, float]]
    spreads: Sequence[float | None] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar in each group; None: there is none.

    Attributes:
        slot: of its colour.
        values: one a group.
        spreads: half the length of each error bar; (): none.
    """

    label: str
    slot: int
    values: Sequence[float | None]
    spreads: Sequence[float | None] = ()


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[Line],
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[float] = (),
    diagonal: bool = False,
) -> Chart:
    """Returns lines over an axis of numbers.

    Args:
        x_label, y_label: with units.
        y_range: of the axis; None: as the points need.
        x_ticks: places with a number below; (): chosen.
        diagonal: also y = x, dashed.
    """
    lines = [line for line in lines if line.points]
    xs = [x for line in lines for x, _ in line.points] or [0.0, 1.0]
    ys = [y for line in lines for y in _reached(line)] or [0.0, 1.0]
    x_ticks = list(x_ticks) or [x for x in ticks(min(xs), max(xs)) if min(xs) <= x <= max(xs)]
    y_ticks = ticks(*(y_range or (min(ys), max(ys))))
    x_at = _scale(min(*xs, *x_ticks), max(*xs, *x_ticks), LEFT + 6, NARROW - RIGHT - 6)
    y_at = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    drawn = [_frame(NARROW, y_ticks, y_at, y_label)]
    drawn += [_text(x_at(x), HEIGHT - BOTTOM + 16, _number(x), "middle") for x in x_ticks]
    drawn.append(_text((LEFT + NARROW) / 2, HEIGHT - 6, x_label, "middle"))
    if diagonal:
        low, high = y_ticks[0], y_ticks[-1]
        drawn.append(_rule("ideal", x_at(low), y_at(low), x_at(high), y_at(high)))
    for line in lines:
        drawn += _drawn_line(line, x_at, y_at)
    legend = list(dict.fromkeys((line.label, line.slot) for line in lines if line.label))
    return Chart(title, _svg(title, NARROW, drawn), legend)


def _reached(line: Line) -> list[float]:
    ends = [y for _, y in line.points]
    for (_, y), spread in zip(line.points, line.spreads):
        ends += [y - (spread or 0), y + (spread or 0)]
    return ends


def _drawn_line(line: Line, x_at, y_at) -> list[Markup]:
    places = [(x_at(x), y_at(y)) for x, y in line.points]
    dashed = " dashed" if line.dashed else ""
    drawn = []
    if len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(
            Markup('<polyline class="line l{}{}" points="{}"><title>{}</title></polyline>').format(
                line.slot, dashed, path, shown(line.label)
            )
        )
    if len(places) <= 40:
        kind = f"l{line.slot}" if line.dashed else f"f{line.slot}"
        drawn += [
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(kind, x, y)
            for x, y in places
        ]
    for (x, y), spread in zip(line.points, line.spreads):
        if spread:
            drawn.append(_rule("spread", x_at(x), y_at(y - spread), x_at(x), y_at(y + spread)))
    return drawn


def bar_chart(title: str, groups: Sequence[str], series: Sequence[Bars], y_label: str) -> Chart:
    """Returns grouped bars of percentages, 0 to 100, with each bar's number on top."""
    series = [one for one in series if any(value is not None for value in one.values)]
    group_width = BAR * max(1, len(series))
    width = max(NARROW, LEFT + RIGHT + len(groups) * (group_width + GAP))
    step = (width - LEFT - RIGHT) / max(1, len(groups))
    bar = min(2 * BAR, (step - GAP) / max(1, len(series)))
    y_ticks = [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    y_at = _scale(0, 106, HEIGHT - BOTTOM, TOP)
    drawn = [_frame(width, y_ticks, y_at, y_label)]
    for g, group in enumerate(groups):
        middle = LEFT + (g + 0.5) * step
        drawn.append(_text(middle, HEIGHT - BOTTOM + 18, group, "middle"))
        for i, one in enumerate(series):
            value = one.values[g]
            if value is None:
                continue
            x = middle + (i - len(series) / 2) * bar
            spread = one.spreads[g] if one.spreads else None
            drawn += _drawn_bar(x, bar, value, spread, one, y_at)
    legend = [(one.label, one.slot) for one in series]
    return Chart(title, _svg(title, width, drawn), legend, round(width))


def _drawn_bar(x: float, width: float, value: float, spread, one: Bars, y_at) -> list[Markup]:
    top, middle = y_at(value), x + width / 2
    drawn = [
        Markup(
            '<rect class="bar f{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
            "<title>{}: {:.2f}</title></rect>"
        ).format(one.slot, x + 1, top, width - 2, y_at(0) - top, shown(one.label), value)
    ]
    if spread:
        high = y_at(min(106, value + spread))
        drawn.append(_rule("spread", middle, y_at(max(0, value - spread)), middle, high))
        top = high
    return [*drawn, _text(middle, top - 3, f"{value:.1f}", "middle", "value")]


# --- axes -----------------------------------------------------------------------------------------


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Returns round numbers from below `low` to above `high`: 1, 2 or 5 times a power of ten."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float):
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _frame(width: float, y_ticks: Sequence[float], y_at, y_label: str) -> Markup:
    parts = []
    for y in y_ticks:
        parts.append(_rule("grid", LEFT, y_at(y), width - RIGHT, y_at(y)))
        parts.append(_text(LEFT - 6, y_at(y) + 4, _number(y), "end"))
    parts.append(_rule("axis", LEFT, HEIGHT - BOTTOM, width - RIGHT, HEIGHT - BOTTOM))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = Markup(
        '<text text-anchor="middle" transform="translate(13 {:.1f}) rotate(-90)">{}</text>'
    )
    return Markup("").join([*parts, turned.format(middle, shown(y_label))])


def _number(value: float) -> str:
    return f"{value:g}"


def _rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, y1, x2, y2
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, shown(text)
    )


def _svg(title: str, width: float, drawn: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {:.0f} {}" role="img" aria-label="{}">')
    return head.format(width, HEIGHT, shown(title)) + Markup("").join(drawn) + Markup("</svg>")
