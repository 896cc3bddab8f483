"""The site builds without a warning and without a network, and loads nothing from elsewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.pages import name_of, pages
from tests.runs import ROOT

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class _Loaded(HTMLParser):
    """What a page makes a browser fetch, links between pages left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        if LOADED.get(tag) in given:
            self.found.append(str(given[LOADED[tag]]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material"):
        pytest.importorskip(package, reason="pip install -r requirements-docs.txt runs this test")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site(site: Path):
    html = {str(path.relative_to(site)): path.read_text("utf-8") for path in site.rglob("*.html")}
    docs = {name_of(p).removeprefix("docs/").replace(".md", ".html") for p in pages()}
    wanted = docs - {"README.html", "CONTRIBUTING.html"} | {"index.html", "contributing.html"}
    assert wanted <= html.keys()
    for name, text in html.items():
        page = _Loaded()
        page.feed(text)
        assert page.found, name
        for target in page.found:
            assert not target.startswith(("http:", "https:", "//")), f"{name} loads {target}"
    for path in site.rglob("*.css"):
        assert "url(http" not in path.read_text("utf-8"), path.name
    assert 'href="quickstart.html"' in html["index.html"]
    assert 'href="contributing.html"' in html["adding.html"]
