"""Names in tables are shown as they are: no page, terminal or spreadsheet obeys them."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from dassl.utils.text import visible
from sweep.plan.table import Row
from sweep.report.formats import FORMATS, latex, markdown, terminal
from sweep.report.grid import Grid
from sweep.report.html import page
from sweep.report.stats import Value

NAMES = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "a & b &amp; c",
    "</table></body>",
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "a|b",
    "a_b **c** `d` [e](f)",
    "50% of #1 is $x$ {y} ~z^ \\end{table}",
    "\x1b[31mred\x1b[0m\x07\x9b2J",
    "two\nlines\rand a return",
    "right \u202eto left",
    "half a letter \udc80",
    "_leading",
    "",
)


def grid_of(name: str) -> Grid:
    values = {
        "base": Value(50.0, {1: 50.0}, 1, 49.0),
        "new": Value(None, {}, 1),
        name: Value(None, text=name),
    }
    rows = (Row((name, "CoOp"), values), Row(("x", name), values))
    return Grid(
        name,
        name,
        ("dataset", "method"),
        ("base", "new", name),
        rows,
        (name,),
        ((name, f"{name}/x.png"),),
    )


class Tags(HTMLParser):
    """Collects what a page consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {key for key, _ in attrs}
        self.addresses += [value for key, value in attrs if key == "href"]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(name: str) -> Tags:
    tags = Tags()
    tags.feed(page([grid_of(name)], name))
    return tags


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_the_tags_of_any_other_page(name: str):
    found, plain = parsed(name), parsed("plain")
    ours = [tag for tag in found.tags if tag not in SVG]
    assert ours == [tag for tag in plain.tags if tag not in SVG]
    assert not {key for key in found.attributes if key.startswith("on")}
    assert visible(" ".join(name.splitlines())) in found.text or not name
    for address in found.addresses:
        assert address.startswith("#") or re.fullmatch(r"[\w.%/~+-]+", address), address
    page([grid_of(name)], name).encode()


SVG = {"svg", "defs", "style", "g", "path", "use", "metadata", "clippath", "rect", "rdf:rdf"} | {
    *("cc:work", "dc:type", "dc:date", "dc:format", "dc:creator", "cc:agent", "dc:title")
}


@pytest.mark.parametrize("name", NAMES)
def test_a_spreadsheet_runs_no_cell(name: str):
    text = FORMATS["csv"](grid_of(name))
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            if re.match(r"\s*[=+\-@]", cell):
                float(cell)  # a difference of -0.5, say
    rows = list(csv.DictReader(io.StringIO(text)))
    assert float(rows[0]["mean"]) == 50.0
    assert float(rows[0]["difference"]) == 1.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("color", [False, True])
def test_a_terminal_obeys_no_name(name: str, color: bool):
    text = terminal(grid_of(name), color)
    left = re.sub("\x1b\\[\\d*m", "", text) if color else text
    assert visible(left) == left
    assert "\r" not in left
    text.encode()


@pytest.mark.parametrize("name", NAMES)
def test_markdown_stays_a_table(name: str):
    text = markdown(grid_of(name))
    table = [line for line in text.splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
    assert len(table) == 4
    assert len(counts) == 1
    assert not re.search(r"(?<!\\)<", text)
    assert "[e](f)" not in text


@pytest.mark.parametrize("name", NAMES)
def test_latex_stays_a_table(name: str):
    lines = latex(grid_of(name)).splitlines()
    end = lines.index(r"\end{table}")
    assert [line for line in lines[:end] if "\\end{table" in line] == []
    for line in lines[:end]:
        bare = re.sub(r"\\[\\%&#_${}]|\\text\w+\{\}", "", line)
        bare = re.sub(r"\\(textcolor|caption|begin|end|tabular|\w+rule)|\$\\pm\$", "", bare)
        assert not re.search(r"[%#_^~\\$]", bare), line
        assert bare.count("{") == bare.count("}")
    assert all(line.startswith("% ") for line in lines[end + 1 :])


def test_names_as_they_are_stay_as_they_were():
    assert "| oxford_flowers |" in markdown(grid_of("oxford_flowers"))
    assert r"oxford\_flowers & CoOp & 50.00" in latex(grid_of("oxford_flowers"))
    assert r"\textcolor{gray}{+1.00}" in latex(grid_of("x"))
