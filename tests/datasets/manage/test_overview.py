"""`python -m datasets list` and `status`: tables."""

from __future__ import annotations

import shutil

from tests.datasets import fixtures
from tests.datasets.manage.helpers import run


def test_list_shows_all_within_100_columns(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    for name in (*fixtures.COUNTS, "Digits"):
        assert f"\n{name} " in out
    assert max(map(len, out.splitlines())) <= 100


def test_status_tells_ready_partly_there_and_absent(root, capsys):
    shutil.rmtree(root / "oxford_pets" / "images")
    (root / "oxford_pets" / "kept.jpg").write_bytes(b"x")
    shutil.rmtree(root / "dtd" / "images" / "banded")
    assert run("status", "--root", root) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "partly there" in lines["DescribableTextures"]
    assert "120 images" in lines["DescribableTextures"]
    assert "partly there" in lines["OxfordPets"] and "images/" in lines["OxfordPets"]
    assert "absent" in lines["EuroSAT"]


def test_status_of_complete_data(good, capsys):
    run("status", "--root", good)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert " ready " in lines["DescribableTextures"] and "5,640" in lines["DescribableTextures"]
    assert max(map(len, lines.values())) <= 100
