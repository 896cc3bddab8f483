"""Runs on a CLIP of open_clip's: their words, names and exports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dassl.utils import CheckpointError
from encoders import open_clip
from encoders.tokens import OPENAI, Tokenizer
from prompts import Predictor
from prompts.words import interpret, word
from tests.open_clip_models import CONVNEXT, TEXT, build, model_folder, needs_open_clip
from tests.prompts.exports import by_onnxruntime, command, prepared
from tests.prompts.runs import pictures, train
from tests.prompts.test_card import said_by

pytestmark = [needs_open_clip, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small CLIPs; one of them also as a file beside its description."""
    root = tmp_path_factory.mktemp("open_clip")
    model_folder(root / "vit")
    model_folder(root / "convnext", CONVNEXT, TEXT, custom_text=True)
    return root


def clip_of(place: Path, kind: str) -> tuple[str, str]:
    return "MODEL.BACKBONE.NAME", f"open_clip:local-dir:{place / kind}"


@pytest.fixture(scope="module")
def start(place: Path, data: Path) -> Path:
    """A run whose context has hardly moved from its words."""
    still = ("OPTIM.LR", "1e-9", "OPTIM.WARMUP_EPOCH", "0")
    return train(data, place / "start", "CoOp", *clip_of(place, "vit"), *still)


def test_words_are_those_of_its_own_tokens(start: Path):
    [words] = interpret(Predictor.load(start), k=2)
    assert [row[0][0] for row in words.nearest] == ["a", "photo", "of", "a"]
    assert all(row[0][1] < 1e-4 < row[1][1] for row in words.nearest)


def test_tokens_are_read_by_their_own_tokenizer():
    theirs = Tokenizer(list, lambda ids: {0: " été", 1: "\ufffd", 2: " "}[ids[0]], OPENAI.rows)
    assert [word(i, theirs) for i in range(3)] == ["été", "token 1", "token 2"]
    assert word(OPENAI.encode("leopard")[0], OPENAI) == "leopard"


def test_name_and_file_are_both_told(place: Path, data: Path, tmp_path: Path, monkeypatch):
    """As of an architecture with a file; a small one under a real name, so that nothing is big."""
    config = open_clip.model_config(open_clip.parsed(clip_of(place, "vit")[1]))
    file = shutil.copy(place / "vit/open_clip_pytorch_model.bin", tmp_path / "own.bin")
    monkeypatch.setattr(open_clip.package(), "get_model_config", lambda _: dict(config))
    names = ("MODEL.BACKBONE.NAME", "open_clip:ViT-B-32", "MODEL.BACKBONE.PATH", str(file))
    folder = train(data, tmp_path / "run", "CoOp", *names)
    name = f"open_clip:ViT-B-32 ({file})"
    assert json.loads((folder / "results.jsonl").read_text())["backbone"] == name
    assert json.loads((folder / "model.json").read_text())["weights"]["name"] == f"CLIP {name}"
    predictor = Predictor.load(folder)
    assert predictor.run.backbone == name
    pytest.importorskip("safetensors")
    out = tmp_path / "file"
    assert command("export", folder, out, "--as", "prompts") == 0
    for text in (out.with_name("file.md").read_text(), out.read_bytes().decode("latin-1")):
        assert "open_clip:ViT-B-32 (own.bin)" in text
        assert str(tmp_path) not in text, "no place of this machine"
    moved = shutil.move(file, tmp_path / "moved.bin")
    assert command("import", out, tmp_path / "again", "--backbone-path", moved) == 0
    again = Predictor.load(tmp_path / "again")
    assert torch.equal(again.logits(pictures(data)), predictor.logits(pictures(data)))


def test_a_folder_may_move(place: Path, start: Path, data: Path, tmp_path: Path):
    before = Predictor.load(start)
    moved = shutil.copytree(place / "vit", tmp_path / "elsewhere")
    found = Predictor.load(start, backbone_path=str(moved))
    assert str(moved) in found.run.backbone
    assert torch.equal(found.logits(pictures(data)), before.logits(pictures(data)))
    with pytest.raises(CheckpointError, match="the CLIP was"):
        Predictor.load(start, backbone_path=str(place / "convnext"))
    pytest.importorskip("safetensors")
    file = tmp_path / "file"
    assert command("export", start, file, "--as", "prompts") == 0
    assert str(place) not in file.read_bytes().decode("latin-1"), "no place of this machine"
    assert command("import", file, tmp_path / "again", "--backbone-path", moved) == 0


def test_the_card_s_code_gives_the_same(start: Path, data: Path, tmp_path: Path, monkeypatch):
    """As it stands; the folder, whose place a card does not tell, lies beside it."""
    pytest.importorskip("safetensors")
    file = tmp_path / "classes.safetensors"
    assert command("export", start, file, "--as", "classifier") == 0
    predictor = Predictor.load(start)
    folder = predictor.run.cfg.MODEL.BACKBONE.NAME.rpartition(":")[2]
    shutil.copytree(folder, tmp_path / Path(folder).name)
    paths = pictures(data)
    expected = [f"{name} {p:.1%}" for [(name, p)] in predictor(paths, top=1)]
    assert said_by(file, paths, monkeypatch) == {"open_clip": expected}


def test_onnx(place: Path, data: Path, tmp_path: Path):
    """Also of more images than our own encoder takes of a tower that runs as it is."""
    pytest.importorskip("onnxscript")
    folder = train(data, tmp_path / "run", "CoOp", *clip_of(place, "convnext"))
    file, predictor = tmp_path / "model.onnx", Predictor.load(folder)
    assert command("export", folder, file, "--as", "onnx") == 0
    paths = 4 * pictures(data)[:5]
    images = torch.stack([prepared(path) for path in paths])
    expected = predictor.logits(paths)
    for n in (len(paths), 1, 3):
        found = by_onnxruntime(file, images[:n])
        torch.testing.assert_close(found, expected[:n], rtol=0, atol=1e-4)


def test_the_models_differ(place: Path):
    """Else the tests above could not fail."""
    names = [open_clip.parsed(clip_of(place, kind)[1]) for kind in ("vit", "convnext")]
    states = [build(open_clip.model_config(name)).state_dict().keys() for name in names]
    assert states[0] != states[1]
