"""A page as HTML. Every text is escaped, and shown where a browser would obey it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dassl.utils.text import visible
from pages.colors import LIGHT, variables
from pages.parts import Page

FOLDER = Path(__file__).parent


def render(page: Page) -> str:
    """Returns the page as one HTML document that loads nothing."""
    looks = {"light": Markup(variables(False)), "dark": Markup(variables(True))}
    return _environment().get_template("page.html.j2").render(page=page, slots=len(LIGHT), **looks)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def shown(value: Any) -> Any:
    """Returns a text on one line in which nothing is hidden; what is already HTML stays."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible(" ".join(value.splitlines()))
