"""A page with one of each piece, and what a page consists of."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

from PIL import Image

import pages
from pages import (
    Bars,
    Cell,
    Code,
    Column,
    Gallery,
    Line,
    Page,
    Picture,
    Prompts,
    Section,
    Table,
    bar_chart,
    line_chart,
)


def pixel() -> str:
    """Returns a picture of one pixel as a data URI."""
    held = io.BytesIO()
    Image.new("RGB", (1, 1)).save(held, format="PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def page_of(name: str = "cat") -> str:
    """Returns a page in which every text that others may have written is `name`."""
    numbers = [Cell("9.5", 9.5, seeds="seed 1: 9.5"), Cell("80.1", 80.1), Cell("", None)]
    columns = [Column(name, name), Column("n", "How many.", number=True)]
    rows = [[Cell(name), numbers[1]], [Cell("bear"), numbers[0]], [Cell("ant"), numbers[2]]]
    blocks = [
        bar_chart(
            name, [name, "new"], [Bars(name, 0, [50.0, None]), Bars("none", 1, [None] * 2)], "%"
        ),
        line_chart(name, name, name, [Line(name, 2, [(1, 2.0), (2, 3.0)], (0.5, None))]),
        Table(name, columns, rows, f"Nobody knows {name}."),
        Gallery(name, [Picture(pixel(), name, [name, name]), Picture("", name, [name])]),
        Prompts(name, [[("mark", "start"), ("learned", "v1"), ("word", name)]], name),
        Code(name, name),
    ]
    section = Section(name, name, blocks, name, [name], [(name, "x/y.png")], name)
    return pages.render(Page(name, name, [section]))


class Elements(HTMLParser):
    """Collects what a page consists of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, key: str) -> list[str | None]:
        return [value for _, name, value in self.attributes if name == key]
