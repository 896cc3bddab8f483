"""The version is `dassl.__version__`; the files that people read name the same one."""

import re
import sys
from pathlib import Path

import pytest
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


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_pyproject():
    """Version and dependencies stand elsewhere; of the packages, nothing is installed."""
    import tomllib

    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, tool = content["project"], content["tool"]["setuptools"]
    assert project["dynamic"] == ["version", "dependencies"]
    assert tool["dynamic"] == {
        "version": {"attr": "dassl.__version__"},
        "dependencies": {"file": ["requirements.txt"]},
    }
    assert (tool["packages"], tool["py-modules"]) == ([], ["promptlearn"])
    extras = project["optional-dependencies"]
    for file, extra in (("test", "dev"), ("export", "export"), ("docs", "docs")):
        lines = (ROOT / f"requirements-{file}.txt").read_text(encoding="utf-8").splitlines()
        wanted = [line.partition("#")[0].strip() for line in lines]
        included = {"-r requirements.txt": "", "-r requirements-export.txt": "promptlearn[export]"}
        wanted = [included.get(line, line) for line in wanted]
        assert list(filter(None, wanted)) == extras[extra], file
    assert {"open_clip", "ray", "parquet"} < extras.keys()
