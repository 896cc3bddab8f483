"""Exports: prompts and back, class weights in other libraries, ONNX; what cannot be is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as T

from dassl.utils import ConfigError
from dassl.utils.cli import run_cli
from dassl.utils.files import content_digest
from prompts import Predictor
from prompts.__main__ import main
from prompts.classifier import class_weights, load_classifier
from prompts.onnx_file import plain_module, write_onnx
from prompts.plain import PlainImageEncoder
from tests.porting.conftest import foreign  # noqa: F401  # a fixture
from tests.prompts import other_libraries
from tests.prompts.runs import METHODS, pictures, train
from tests.runs import run

LEARNING = [name for name in METHODS if not name.startswith("Zeroshot")]
ONE_MATRIX = (
    "CoOp",
    "KgCoOp",
    "ProGrad",
    "TCP",
    "LASP",
    "ZeroshotCLIP",
    "ZeroshotCLIP2",
    "LinearProbe",
)
OTHERS = ["a photo", "river boat", "three"]


def command(*arguments: object) -> int:
    return run_cli(lambda: main([str(argument) for argument in arguments]))


def prepared(path: str) -> Tensor:
    """A picture as its card says, by torchvision: (3, 32, 32)."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    resize = T.Resize(32, T.InterpolationMode.BICUBIC)
    steps = T.Compose([resize, T.CenterCrop(32), T.ToTensor(), T.Normalize(mean, std)])
    with Image.open(path) as image:
        return steps(image.convert("RGB"))


# --- prompts and back -----------------------------------------------------------------------------


def there_and_back(folder: Path, tmp_path: Path, paths: list[str]) -> None:
    pytest.importorskip("safetensors")
    file, again = tmp_path / "file.safetensors", tmp_path / "again"
    assert command("export", folder, file, "--as", "prompts") == 0
    assert command("import", file, again) == 0
    before, after = Predictor.load(folder), Predictor.load(again)
    assert torch.equal(before.logits(paths), after.logits(paths))
    assert before.classnames == after.classnames
    assert after.trainer.model_epoch == before.trainer.model_epoch
    assert str(tmp_path) not in file.read_bytes().decode("latin-1"), "no place of this machine"


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


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [name for name in LEARNING if name != "CoOp"])
def test_prompts_and_back_of_every_method(trainer: str, data: Path, tmp_path: Path):
    there_and_back(train(data, tmp_path / "run", trainer), tmp_path, pictures(data))


def test_prompts_and_back_of_class_specific_contexts(csc: Path, data: Path, tmp_path: Path):
    there_and_back(csc, tmp_path, pictures(data))


@pytest.mark.slow
def test_prompts_and_back_of_somebody_else_s_trainer(
    foreign: Callable[..., Path],  # noqa: F811
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
):
    foreign("mini_coop")
    run(data, tmp_path / "run", trainer="MiniCoOp", epoch=1)
    there_and_back(tmp_path / "run", tmp_path, pictures(data))
    for kind in ("classifier", "onnx"):
        assert command("export", tmp_path / "run", tmp_path / kind, "--as", kind) == 2
        assert "somebody else's" in capsys.readouterr().err


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


def encode_by_openai(images: Tensor) -> Tensor:
    return other_libraries.in_openai().encode_image(images)


def encode_by_open_clip(images: Tensor) -> Tensor:
    pytest.importorskip("open_clip")
    return other_libraries.in_open_clip().encode_image(images)


def encode_by_transformers(images: Tensor) -> Tensor:
    pytest.importorskip("transformers")
    found = other_libraries.in_transformers().get_image_features(pixel_values=images)
    return found if isinstance(found, Tensor) else found.pooler_output  # from version 5 on


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


@pytest.mark.slow
@pytest.mark.parametrize("trainer", METHODS)
def test_which_methods_have_one_matrix(trainer: str, data: Path, tmp_path: Path):
    pytest.importorskip("safetensors")
    predictor = Predictor.load(train(data, tmp_path / "run", trainer))
    if trainer not in ONE_MATRIX:
        several = trainer in ("CoCoOp", "PLOT", "DePT")
        reason = "no single matrix" if several else "prompts in the image tower"
        with pytest.raises(ConfigError, match=reason):
            class_weights(predictor)
        return
    assert command("export", tmp_path / "run", tmp_path / "file", "--as", "classifier") == 0
    classifier, names = load_classifier(tmp_path / "file")
    with torch.no_grad():
        features = encode_by_openai(torch.stack([prepared(path) for path in pictures(data)]))
    logits = predictor.logits(pictures(data))
    torch.testing.assert_close(classifier(features), logits, rtol=0, atol=1e-4)
    assert names == predictor.classnames


# --- ONNX -----------------------------------------------------------------------------------------


def by_onnxruntime(file: Path, images: Tensor) -> Tensor:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


@pytest.mark.slow
@pytest.mark.parametrize("trainer", METHODS)
def test_onnx_gives_the_same_logits(trainer: str, data: Path, tmp_path: Path):
    pytest.importorskip("onnxscript")
    folder, file = train(data, tmp_path / "run", trainer), tmp_path / "model.onnx"
    if trainer in ("PLOT", "DePT"):
        with pytest.raises(ConfigError, match="a formula of its own for its logits"):
            plain_module(Predictor.load(folder))
        return
    assert command("export", folder, file, "--as", "onnx") == 0
    paths, predictor = pictures(data), Predictor.load(folder)
    images = torch.stack([prepared(path) for path in paths])
    expected = predictor.logits(paths)
    for n in (len(paths), 1):  # any number of images
        torch.testing.assert_close(
            by_onnxruntime(file, images[:n]), expected[:n], rtol=0, atol=1e-4
        )
    onnx = pytest.importorskip("onnx")
    held = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(held["classnames"]) == predictor.classnames
    assert json.loads(held["preparation"])["center_crop"] == [32, 32]


@torch.no_grad()
def test_the_plain_module_is_what_we_compute(cocoop: Path, data: Path):
    predictor = Predictor.load(cocoop, OTHERS)
    images = torch.stack([prepared(path) for path in pictures(data)])
    expected = predictor.logits(pictures(data))
    torch.testing.assert_close(plain_module(predictor)(images), expected, rtol=0, atol=1e-4)


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


def test_the_card_says_what_it_is(coop: Path, tmp_path: Path):
    pytest.importorskip("safetensors")
    file = tmp_path / "coop.safetensors"
    assert command("export", coop, file, "--as", "prompts") == 0
    text = (tmp_path / "coop.safetensors.md").read_text()
    record = json.loads((coop / "results.jsonl").read_text())
    accuracy = f"{record['metrics']['accuracy']:.1f}% of {record['total']} test images"
    for expected in ("# CoOp for 5 classes", "EuroSAT, base classes, 4 shots", accuracy, "Forest"):
        assert expected in text
    for digest in (record["weights"]["sha256"], content_digest(file)):
        assert digest in text
    assert command("export", coop, file, "--as", "prompts", "--classes", "a,b", "--overwrite") == 0
    text = (tmp_path / "coop.safetensors.md").read_text()
    assert "of the classes it was trained on" in text and "It was trained on others" in text


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


@pytest.mark.slow
def test_zero_shot_clip_has_no_prompts_to_export(data: Path, tmp_path: Path, capsys):
    folder = train(data, tmp_path / "run", "ZeroshotCLIP")
    assert command("export", folder, tmp_path / "x", "--as", "prompts") == 2
    assert "has learned nothing" in capsys.readouterr().err
