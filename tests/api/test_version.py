"""The version is `dassl.__version__`; the files that people read name the same one."""

import re
from pathlib import Path

import yaml

import dassl

ROOT = Path(__file__).resolve().parents[2]


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dassl.__version__
    assert citation["license"] == "MIT"
    assert [paper["url"][-10:] for paper in citation["references"]] == ["2109.01134", "2203.05557"]


def test_changelog():
    versions = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert versions[0] == dassl.__version__
    assert numbers == sorted(set(numbers), reverse=True), "newest first"


def test_pyproject():
    """Nothing is installed as a package, so there is no second place for the version."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "[project]" not in text
    assert not re.search(r"^version\b", text, re.M)
