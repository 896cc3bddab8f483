"""The catalog agrees with the papers and with the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from dassl.utils import read_json
from datasets.manage.catalog import catalog, entries
from datasets.resources import CATALOG
from tests.datasets import fixtures
from tests.datasets.manage.helpers import run


def test_the_catalog_agrees_with_the_papers():
    for name, (classes, train, val, test) in fixtures.COUNTS.items():
        entry = catalog()[name]
        assert entry.classes == classes
        variant = name in ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")
        expected = (None, None, test) if variant else (train, val, test)
        assert entry.sizes == ((train, None, test) if name == "ImageNet" else expected)


def test_every_data_set_can_be_had_somehow():
    for entry in catalog().values():
        assert entry.sources or entry.by_hand or entry.name == "Digits"
        names = [source.name for source in entry.sources]
        assert len(names) == len(set(names))
        for file in (file for source in entry.sources for file in source.files):
            assert file.urls and all(
                url.split(":")[0] in ("http", "https", "gdrive") for url in file.urls
            )
            assert (len(file.sha256 or "0" * 64), len(file.md5 or "0" * 32)) == (64, 32)


def test_unknown_name(capsys, tmp_path):
    assert run("verify", "EuroSat2", "--root", tmp_path) == 2
    assert "Did you mean 'EuroSAT'?" in capsys.readouterr().err


def test_names_in_any_case():
    assert [entry.name for entry in entries("eurosat")] == ["EuroSAT"]
    assert len(entries("all")) == 16


def test_the_documentation_names_every_address():
    text = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")
    for entry in catalog().values():
        assert f"### {entry.name}\n" in text and entry.page in text
        for file in (file for source in entry.sources for file in source.files):
            assert all(address_in(url) in text for url in file.urls)
            known = file.md5 or file.sha256 or file.git_blob or file.name.removeprefix("mirror-")
            assert known in text


def address_in(url: str) -> str:
    """Returns how the documentation names an address; that of the hub stands there once."""
    for base in read_json(CATALOG)["hub"]:
        url = url.removeprefix(f"{base}/")
    return url.partition("#")[0].removeprefix("gdrive:")


def test_the_hub_is_pinned():
    text = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")
    for base in read_json(CATALOG)["hub"]:
        assert base in text and re.search("/resolve/[0-9a-f]{40}$", base)
    files = [f for e in catalog().values() for s in e.sources for f in s.files]
    assert not any("hub:" in url for file in files for url in file.urls)
    assert sum(file.name.startswith("mirror-") for file in files) == 14  # all but ImageNet
