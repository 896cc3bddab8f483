"""Every method: predict, interpret, export and import work, or say why not and what can be done."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import CheckpointError, ConfigError
from prompts import Predictor
from prompts.classifier import class_weights, load_classifier
from prompts.onnx_file import plain_module
from prompts.words import interpret
from tests.porting.conftest import foreign  # noqa: F401  # a fixture
from tests.prompts.conftest import Trained
from tests.prompts.exports import (
    by_onnxruntime,
    command,
    encode_by_openai,
    prepared,
    there_and_back,
)
from tests.prompts.runs import METHODS, pictures
from tests.runs import run

pytestmark = pytest.mark.slow  # a training a method

LEARN_NOTHING = ("ZeroshotCLIP", "ZeroshotCLIP2")
ONE_MATRIX = {
    *("CoOp", "KgCoOp", "ProGrad", "TCP", "LASP", "ZeroshotCLIP", "ZeroshotCLIP2", "LinearProbe"),
    *("TransformText", "TransformImage", "BiasText", "IVLP, text alone"),
}
NO_MATRIX = {
    "CoCoOp": "they depend on the picture",
    "PLOT": "or are several",
    "DePT": "fuses two predictions",
    "FineTuneImage": "learns the image encoder itself",
}
NO_WORDS = {
    *("VPT", "ZeroshotCLIP", "ZeroshotCLIP2", "LinearProbe"),
    *("TransformText", "TransformImage", "BiasText", "FineTuneImage"),
}
ONE_OF_EACH_FORM = ("CoOp", "CoCoOp", "PLOT", "VPT", "DePT, on IVLP")
OTHERS = ["Forest", "river boat"]


@pytest.fixture(scope="module")
def folder(method: str, trained: Trained) -> Path:
    return trained(method)


def same_as_tested(folder: Path, root: Path) -> None:
    """Asserts that predictions are those of the run's own test, which predictions.csv holds."""
    with (folder / "predictions.csv").open(newline="") as file:
        tested = list(csv.DictReader(file))
    assert len(tested) > 10
    predictor = Predictor.load(folder)
    # The paths there start from DATASET.ROOT.
    found = predictor([root / row["path"] for row in tested], top=1)
    for row, [(name, probability)] in zip(tested, found):
        assert name == row["predicted"]
        assert probability == pytest.approx(float(row["probability_1"]), abs=1e-5)


def test_none_is_forgotten():
    known = {name.partition(",")[0] for name in METHODS}
    classes = {name: TRAINER_REGISTRY.get(name) for name in TRAINER_REGISTRY.registered_names()}
    assert known == {n for n, cls in classes.items() if cls.__module__.startswith("trainers.")}


def test_it_predicts_what_its_test_said(folder: Path, data: Path):
    same_as_tested(folder, data)


def test_other_classes(method: str, folder: Path, data: Path):
    """What learned of classes by themselves refuses others."""
    refused = {
        "LinearProbe": (CheckpointError, "only the classes it was trained on"),
        "CoOp, class-specific": (ConfigError, "a context for each of its 5 classes"),
        "DePT, class-specific": (ConfigError, "a context for each of its 5 classes"),
    }
    if method in refused:
        kind, said = refused[method]
        with pytest.raises(kind, match=said):
            Predictor.load(folder, OTHERS)
        return
    predictor = Predictor.load(folder, OTHERS)
    [[(name, probability)]] = predictor(pictures(data)[0], top=1)
    assert name in OTHERS and 0.5 <= probability <= 1


def test_prompts_and_back(method: str, folder: Path, data: Path, tmp_path: Path, capsys):
    pytest.importorskip("safetensors")
    if method in LEARN_NOTHING:
        assert command("export", folder, tmp_path / "x", "--as", "prompts") == 2
        assert "its prompts are words. Export its class weights" in capsys.readouterr().err
        return
    there_and_back(folder, tmp_path, pictures(data))


def test_one_matrix(method: str, folder: Path, data: Path, tmp_path: Path):
    predictor = Predictor.load(folder)
    if {method, method.partition(",")[0]}.isdisjoint(ONE_MATRIX):
        reason = NO_MATRIX.get(method.partition(",")[0], "has prompts in the image tower")
        with pytest.raises(ConfigError, match=f"{reason}.* --as onnx; .* --as prompts"):
            class_weights(predictor)
        return
    pytest.importorskip("safetensors")
    assert command("export", folder, tmp_path / "file", "--as", "classifier") == 0
    classifier, names = load_classifier(tmp_path / "file")
    with torch.no_grad():
        features = encode_by_openai(torch.stack([prepared(path) for path in pictures(data)]))
    logits = predictor.logits(pictures(data))
    torch.testing.assert_close(classifier(features), logits, rtol=0, atol=1e-4)
    assert names == predictor.classnames


@torch.no_grad()
def test_the_plain_module_is_what_we_compute(method: str, folder: Path, data: Path):
    """What is traced for ONNX; of one, two or seven classes, where there may be others."""
    classes = (1, 2, 7)[list(METHODS).index(method) % 3]
    names = [f"class {i}" for i in range(classes)]
    try:
        predictor = Predictor.load(folder, names)
    except (CheckpointError, ConfigError):
        predictor = Predictor.load(folder)
    images = torch.stack([prepared(path) for path in pictures(data)])
    expected = predictor.logits(pictures(data))
    torch.testing.assert_close(plain_module(predictor)(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ONE_OF_EACH_FORM)
def test_onnx_gives_the_same_logits(method: str, trained: Trained, data: Path, tmp_path: Path):
    """One method of each form that is traced; the test above has all."""
    pytest.importorskip("onnxscript")
    folder, file = trained(method), tmp_path / "model.onnx"
    assert command("export", folder, file, "--as", "onnx") == 0
    paths, predictor = pictures(data), Predictor.load(folder)
    images = torch.stack([prepared(path) for path in paths])
    expected = predictor.logits(paths)
    for n in (len(paths), 1, 3):  # any number of images; two were traced
        found = by_onnxruntime(file, images[:n])
        torch.testing.assert_close(found, expected[:n], rtol=0, atol=1e-4)
    onnx = pytest.importorskip("onnx")
    held = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(held["classnames"]) == predictor.classnames
    assert json.loads(held["preparation"])["center_crop"] == [32, 32]


def test_words(method: str, folder: Path, data: Path, capsys):
    predictor = Predictor.load(folder)
    name = method.partition(",")[0]
    if name in NO_WORDS:
        with pytest.raises(ConfigError, match=f"{name} learns no vectors among words"):
            interpret(predictor)
        return
    capsys.readouterr()
    assert all(words.nearest for words in interpret(predictor))
    noted = "vectors of deeper blocks" in capsys.readouterr().err
    deep = ("IVLP", "MaPLe", "TCP", "PromptSRC", "ProMetaR")
    assert noted == (name in deep or method.endswith(deep))
    if name != "CoCoOp":
        with pytest.raises(ConfigError, match="context is the same for all pictures"):
            interpret(predictor, pictures(data)[:1])


@pytest.mark.parametrize("trainer", ["mini_head", "mini_coop"])
def test_somebody_else_s_trainer(
    trainer: str,
    foreign: Callable[..., Path],  # noqa: F811
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
):
    foreign(trainer)
    name = {"mini_head": "MiniHead", "mini_coop": "MiniCoOp"}[trainer]
    folder = tmp_path / "run"
    run(data, folder, "TEST.ERROR_ANALYSIS", "True", trainer=name, epoch=1)
    same_as_tested(folder, data)
    others = ["a", "b", "c", "d", "e"]  # as many as before
    if trainer == "mini_head":
        with pytest.raises(ConfigError, match="of its own for each class"):
            Predictor.load(folder, others)
        return
    assert Predictor.load(folder, others).classnames == others
    pytest.importorskip("safetensors")
    there_and_back(folder, tmp_path, pictures(data))
    for kind in ("classifier", "onnx"):
        assert command("export", folder, tmp_path / kind, "--as", kind) == 2
        assert "somebody else's" in capsys.readouterr().err
