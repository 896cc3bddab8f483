"""The image encoders' benchmark, on small encoders."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import image_encoding
from benchmarks.bars import failures
from benchmarks.image_encoding import BACKBONES, BARS, main
from encoders.image import ImageEncoder
from encoders.openai import BACKBONES as OPENAI
from encoders.openai import TINY

SMALL = {"RN50": (32, 32, (1, 1, 1, 1), 32, None), "ViT-B/16": (32, 32, 2, 64, 16)}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(image_encoding, "BACKBONES", SMALL)


def run(monkeypatch, *arguments: str) -> int:
    command = ["image_encoding.py", "--seconds", "0", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    return main()


def test_all_of_openais_sizes():
    assert {*BACKBONES, TINY} == set(OPENAI)


@pytest.mark.slow
def test_report(small, monkeypatch, tmp_path, capsys):
    path = tmp_path / "results.json"
    flags = ("--backbones", *SMALL, "--batches", "1", "9", "--json", str(path))
    assert run(monkeypatch, *flags) == 0
    report = json.loads(path.read_text())
    assert [r["key"] for r in report["results"]] == [f"{b} b{n}" for b in SMALL for n in (1, 9)]
    for result in report["results"]:
        times = result["all_seconds"]
        assert len(times["plain"]) == len(times["ours"]) == 3
        assert result["ours_images_per_s"] == result["batch"] / sorted(times["ours"])[1]
        assert 0 < result["difference"] < 1e-5
    assert capsys.readouterr().out.count("images/s") == 4


def test_other_features_are_no_result(small, monkeypatch):
    plain = ImageEncoder.__call__
    monkeypatch.setattr(ImageEncoder, "__call__", lambda self, image: 1.01 * plain(self, image))
    with pytest.raises(AssertionError, match=r"ViT-B/16, batch 2: the paths differ by 1\.0e-02"):
        run(monkeypatch, "--backbones", "ViT-B/16", "--batches", "2")


@pytest.mark.slow
def test_bar(small, monkeypatch, capsys):
    for ratio, bf16_ratio, missed in ((2.0, 1.6, 0), (1.99, 1.6, 1), (2.0, 1.59, 1)):
        result = {"key": "ViT-B/16 b32", "ratio": ratio, "bf16_ratio": bf16_ratio}
        assert failures([result], BARS) == missed
    assert run(monkeypatch, "--backbones", "RN50", "--batches", "1", "--check") == 1
    assert "not measured" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(monkeypatch, "--check", "--precision", "fp16")
