"""Makes README, CONTRIBUTING and CHANGELOG pages of the site; a hook of mkdocs (mkdocs.yml)."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # in the repository → on the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_TARGET = re.compile(r"(?<=\]\()[^()\s:#]+")


def on_files(files: Files, config: Any) -> Files:
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_with_links(text, ".", ".")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri in PAGES.values():
        return markdown
    folder = posixpath.dirname(page.file.src_uri)
    return _with_links(markdown, posixpath.join("docs", folder), folder or ".")


def _with_links(text: str, here: str, there: str) -> str:
    """Returns a page whose links lead to the same files on the site.

    Args:
        text: the page.
        here: its folder in the repository.
        there: its folder on the site.
    """

    def moved(target: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, target[0]))
        page = PAGES.get(path) or path.removeprefix("docs/")
        return target[0] if page == path else posixpath.relpath(page, there)

    return _TARGET.sub(moved, text)
