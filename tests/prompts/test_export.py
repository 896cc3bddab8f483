"""Exports: prompts and back, class weights in other libraries, ONNX; what cannot be is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prompts import Predictor
from prompts.onnx_file import write_onnx
from prompts.plain import PlainImageEncoder
from tests.porting.conftest import foreign  # noqa: F401  # a fixture
from tests.prompts.exports import (
    by_onnxruntime,
    command,
    encode_by_open_clip,
    encode_by_openai,
    encode_by_transformers,
    prepared,
    there_and_back,
)
from tests.prompts.runs import pictures

OTHERS = ["a photo", "river boat", "three"]


# --- prompts and back -----------------------------------------------------------------------------


def test_prompts_and_back(coop: Path, data: Path, tmp_path: Path):
    there_and_back(coop, tmp_path, pictures(data))
    size = (tmp_path / "file.safetensors").stat().st_size
    assert size < 8192, "kilobytes"
    header = (tmp_path / "file.safetensors").read_bytes()
    for text in (b"CoOp", b"Annual Crop Land", b"sha256", b"prompt_learner/ctx"):
        assert text in header, "anybody can read it"
    after = Predictor.load(tmp_path / "again", OTHERS)
    assert torch.equal(
        after.logits(pictures(data)), Predictor.load(coop, OTHERS).logits(pictures(data))
    )


def test_wrong_files_of_prompts_are_refused(coop: Path, tmp_path: Path, capsys):
    tools = pytest.importorskip("safetensors.torch")
    safetensors = pytest.importorskip("safetensors")
    good = tmp_path / "good"
    assert command("export", coop, good, "--as", "prompts") == 0
    capsys.readouterr()
    with safetensors.safe_open(good, "pt") as file:
        header, ctx = file.metadata(), file.get_tensor("prompt_learner/ctx")
    other = json.dumps({"name": "CLIP tiny", "sha256": "0" * 64})
    unknown = json.dumps({**json.loads(header["settings"]), "A": 1})
    cases = {
        "cut off": (good.read_bytes()[:-9], "is damaged"),
        "no such file": (b"PK\x03\x04 a zip file", "is damaged"),
        "another format": ({**header, "format": "pt"}, "has the format 'pt'"),
        "no names": ({**header, "classnames": "cat"}, "classnames in its header is no list"),
        "another CLIP": ({**header, "weights": other}, "was learned for CLIP tiny"),
        "another method": ({**header, "trainer": "CoCoOp"}, "names two methods"),
        "other settings": (
            {**header, "settings": unknown},
            "unknown config key A (in the header of",
        ),
        "too many": ({"more": ctx, "prompt_learner/ctx": ctx}, "its method learns"),
        "shorter": ({"prompt_learner/ctx": ctx[:2]}, "of shape (2, 64)"),
        "not finite": ({"prompt_learner/ctx": ctx / 0}, "other values than finite numbers"),
    }
    for name, (change, expected) in cases.items():
        bad = tmp_path / "bad"
        if isinstance(change, bytes):
            bad.write_bytes(change)
        elif isinstance(next(iter(change.values())), Tensor):
            tools.save_file({k: v.clone().contiguous() for k, v in change.items()}, bad, header)
        else:
            tools.save_file({"prompt_learner/ctx": ctx}, bad, change)
        assert command("import", bad, tmp_path / "folder") == 2, name
        said = capsys.readouterr().err
        assert expected in said and len(said.splitlines()) == 1, (name, said)
        assert {path.name for path in tmp_path.iterdir()} == {"good", "good.md", "bad"}, name
    assert command("import", good, coop) == 2
    assert "is there" in capsys.readouterr().err


# --- class weights in other libraries -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("encode", [encode_by_openai, encode_by_open_clip, encode_by_transformers])
@torch.no_grad()
def test_class_weights_in_other_libraries(
    encode: Callable[[Tensor], Tensor], coop: Path, data: Path, tmp_path: Path
):
    """Each library encodes the images; the formula in the file's header does the rest."""
    safetensors = pytest.importorskip("safetensors")
    paths = pictures(data)
    for folder, classes in ((coop, ()), (coop, ("--classes", ",".join(OTHERS)))):
        file = tmp_path / "classifier.safetensors"
        arguments = ("export", folder, file, "--as", "classifier", "--overwrite", *classes)
        assert command(*arguments) == 0
        with safetensors.safe_open(file, "pt") as opened:
            header = opened.metadata()
            names = {name: opened.get_tensor(name) for name in ("weight", "exp_logit_scale")}
        names["features"] = encode(torch.stack([prepared(path) for path in paths]))
        exec(header["formula"], names)
        expected = Predictor.load(folder, OTHERS if classes else None)
        assert json.loads(header["classnames"]) == expected.classnames
        torch.testing.assert_close(names["logits"], expected.logits(paths), rtol=0, atol=1e-4)


# --- ONNX -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_onnx_of_a_resnet(tmp_path: Path):
    pytest.importorskip("onnxscript")
    from openai_clip.model import ModifiedResNet

    torch.manual_seed(0)
    visual = ModifiedResNet((1, 1, 1, 1), output_dim=8, heads=4, input_resolution=64, width=8)
    encoder = PlainImageEncoder(visual).eval()
    write_onnx(encoder, (64, 64), {}, tmp_path / "resnet.onnx")
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        expected = visual.eval()(images)
    found = by_onnxruntime(tmp_path / "resnet.onnx", images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# --- the command ----------------------------------------------------------------------------------


def test_what_cannot_be_is_refused(
    coop: Path, cocoop: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    there = tmp_path / "there.onnx"
    there.touch()
    cases = {
        (
            cocoop,
            tmp_path / "x",
            "--as",
            "classifier",
        ): "Export the whole: --as onnx; or what it learned",
        (coop, there, "--as", "onnx"): "is there: choose another name, or --overwrite",
        (tmp_path, tmp_path / "x", "--as", "onnx"): "holds no config.yaml",
        (coop, tmp_path / "x", "--as", "prompts", "--classes", "a,a"): "the same to CLIP",
    }
    for arguments, expected in cases.items():
        assert command("export", *arguments) == 2
        said = capsys.readouterr()
        assert expected in said.err and len(said.err.splitlines()) == 1 and not said.out
    for library in ("safetensors", "safetensors.torch", "onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, library, None)
    for kind in ("prompts", "classifier", "onnx"):
        assert command("export", coop, tmp_path / "x", "--as", kind) == 2
        assert "pip install -r requirements-export.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
