"""Links lead somewhere, files that pages name are there, pictures have texts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import blocks, inline, name_of, pages, prose
from tests.runs import ROOT, ours

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
ANYWHERE = ("http://", "https://", "mailto:")
MADE_UP = ("my_", "NAME", "ITS_", "PART", "FILE", "…")  # names that stand for a reader's own
ELSEWHERE = {  # in the public repository, or where somebody else's trainer brings it
    "DATASETS.md",
    "draw_curves.py",
    "trainers/train.py",
}
TEXTS = (".py", ".sh", ".yaml", ".md", ".toml", ".txt", ".ipynb", ".cff")
CODE = re.compile(r"@?([A-Za-z_]\w*(?:\.\w+)*)(\(.*\))?")  # a class or a call
OF_OTHERS = {"CLIPModel", "from_pretrained", "SolarizeAdd", "gAMA"}
SKIPPED = {".git", ".venv", ".matrix", "data", "output", "node_modules"}


def files() -> list[Path]:
    tops = [path for path in ROOT.iterdir() if path.name not in SKIPPED]
    found = [p for top in tops for p in (top, *top.rglob("*")) if p.suffix in TEXTS]
    return ours(p for p in found if p.is_file())


FILES = files()
NAMES = {path.name for path in FILES}
CODE_FILES = [p for p in FILES if p.suffix == ".py" and Path(__file__).parent not in p.parents]
WORDS = {w for p in CODE_FILES for w in re.findall(r"\w+", p.read_text(encoding="utf-8"))}
TOP = {path.name for path in ROOT.iterdir()} - SKIPPED
MARKDOWN = [path for path in FILES if path.suffix == ".md"]
NOTEBOOKS = [path for path in FILES if path.suffix == ".ipynb"]


def markdown(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def anchors(text: str) -> set[str]:
    """Returns a page's anchors, as GitHub and mkdocs make them of its headings."""
    heads = re.findall(r"^#+ (.+?)\s*$", prose(text), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", LINK.sub(r"\2", head)).strip().lower() for head in heads)
    return {re.sub(r"\s", "-", head) for head in plain}


@pytest.mark.parametrize("path", [*MARKDOWN, *NOTEBOOKS], ids=name_of)
def test_links(path: Path):
    for picture, text, target in LINK.findall(prose(markdown(path))):
        assert not picture or len(text) > 10, f"{target} needs a text that says what it shows"
        if target.startswith(ANYWHERE):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{name_of(path)} links to {target}"
        if anchor:
            assert anchor in anchors(markdown(there)), f"{name_of(path)}: no heading {target}"


def problem(name: str) -> str:
    """Returns what is wrong with a path that a page names; "" if nothing is."""
    parts = name.rstrip("/").split("/")
    made_up = any(made in name for made in MADE_UP)
    if made_up or name in ELSEWHERE or not re.fullmatch(r"[\w.+@*{},/-]+", name):
        return ""
    is_file = len(parts) == 1 and parts[0].endswith((".py", ".sh", ".md", ".toml"))
    if len(parts) > 1 and parts[0] in TOP:
        for one in _alternatives(name.rstrip("/")):
            if not list(ROOT.glob(one)):
                return f"{one} does not exist"
    elif is_file and name not in NAMES:
        return f"no file is called {name}"
    return ""


def _alternatives(name: str) -> list[str]:
    """`a/{b,c}.sh` → `a/b.sh`, `a/c.sh`."""
    found = re.search(r"\{([^{}]*)\}", name)
    if not found:
        return [name]
    ways = found[1].split(",")
    return [x for w in ways for x in _alternatives(name[: found.start()] + w + name[found.end() :])]


@pytest.mark.parametrize("path", [*MARKDOWN, *NOTEBOOKS], ids=name_of)
def test_files_that_are_named_exist(path: Path):
    text = markdown(path)
    titles = {block.title for block in blocks(text)}
    wrong = {x: problem(x.split("::")[0]) for x in inline(text) if x not in titles}
    assert not {text: why for text, why in wrong.items() if why}


@pytest.mark.parametrize("path", [*pages(), *NOTEBOOKS], ids=name_of)
def test_classes_and_functions_that_are_named_exist(path: Path):
    assert not [code for code in inline(markdown(path)) if dead_words(code)]


def dead_words(code: str) -> set[str]:
    """Returns the names in `Class.method`, `call(x)` that occur nowhere in the code."""
    found = CODE.fullmatch(code)
    if not found or not (found[2] or re.search("[a-z][A-Z]", found[1])):
        return set()
    return set(found[1].split(".")) - WORDS - OF_OTHERS


def test_pages_that_code_and_configs_name_exist():
    named = re.compile(r"\bdocs/[\w/]+\.(?:md|png|svg)\b")
    for path in FILES:
        if path.suffix in (".py", ".sh", ".yaml", ".toml", ".ipynb") and path != Path(__file__):
            for name in named.findall(path.read_text(encoding="utf-8")):
                assert (ROOT / name).is_file(), f"{name_of(path)} names {name}"


def test_drawings_say_what_they_are():
    for path in ours((ROOT / "docs").rglob("*.svg")):
        text = path.read_text(encoding="utf-8")
        assert "<title>" in text and "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_dead_names_are_noticed():
    for name in ("trainers/cop.py", "docs/no_page.md", "scripts/cocoop/{xd_train,xd_tset}.sh"):
        assert problem(name), name
    for name in ("trainers/coop.py", "tests/parity", "coop.py", "trainers/my_prompt.py", "a/b"):
        assert not problem(name), name
    assert dead_words("PromptLearner.promt") and dead_words("lode_model(x)")
    assert not dead_words("PromptLearner.prompt") and not dead_words("two words")
    assert anchors("# A `b`, c\n\n## [D](x.md) e-f") == {"a-b-c", "d-e-f"}
