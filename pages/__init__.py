"""One self-contained HTML page: tables that sort, charts, pictures; no server, no network.

What stands on a page is data (`parts.py`, `charts.py`); how it looks is `page.html.j2`, `style.css`
and `script.js`, which are written into the page. Nothing here knows runs or sweeps.
"""

from pages.charts import Bars, Line, bar_chart, line_chart
from pages.parts import Cell, Chart, Code, Column, Gallery, Page, Picture, Prompts, Section, Table
from pages.render import render

__all__ = [
    "Bars",
    "Cell",
    "Chart",
    "Code",
    "Column",
    "Gallery",
    "Line",
    "Page",
    "Picture",
    "Prompts",
    "Section",
    "Table",
    "bar_chart",
    "line_chart",
    "render",
]
