"""Model cards: what they say, and that their code, copied as it stands, gives the same answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from dassl.utils.files import content_digest
from prompts import Predictor
from prompts.card import card
from prompts.exports import KINDS
from prompts.usage import NAMES
from tests.prompts import other_libraries
from tests.prompts.conftest import Trained
from tests.prompts.exports import command
from tests.prompts.runs import pictures
from tests.runs import run as train_run

LIBRARIES = {"OpenAI's package": "openai", "open_clip": "open_clip", "transformers": "transformers"}


def blocks(text: str) -> list[tuple[str, str]]:
    """Returns a card's blocks of Python, each with the line before it."""
    return re.findall(r"^([^\n]*)\n\n```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)


def said_by(file: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Returns library → what a card's code prints, file by file, class and probability.

    The code runs beside the file, with other pictures in the place of "picture.jpg".
    """
    monkeypatch.chdir(file.parent)
    found, before = blocks(Path(f"{file}.md").read_text()), torch.is_grad_enabled()
    encoders = {name: (name, code) for name, code in found if name.split(" (")[0] in LIBRARIES}
    said = {}
    for chosen in encoders.values() or [("", "")]:
        code = "".join(
            code for head, code in found if (head, code) == chosen or head not in encoders
        )
        assert '["picture.jpg"]' in code
        out = StringIO()
        try:
            with redirect_stdout(out):
                exec(code.replace('["picture.jpg"]', repr(paths)), {})
        finally:
            torch.set_grad_enabled(before)
        lines = out.getvalue().splitlines()
        assert len(lines) == len(paths)
        name = chosen[0].split(" (")[0]
        said[name] = [line.removeprefix(f"{path} ") for path, line in zip(paths, lines)]
    return said


def expected(predictor: Predictor, paths: list[str]) -> list[str]:
    return [f"{name} {p:.1%}" for [(name, p)] in predictor(paths, top=1)]


@pytest.fixture
def with_tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Predictor, str], None]:
    """Says that a run's CLIP is one of OpenAI's; the libraries then load the embedded one."""

    def pretend(predictor: Predictor, name: str) -> None:
        asked = NAMES[name]
        clip, package = pytest.importorskip("clip"), pytest.importorskip("open_clip")
        transformers = pytest.importorskip("transformers")

        def loads(place: Any, method: str, wanted: tuple, answer: Callable[[], Any]) -> None:
            def load(*given: Any, **more: Any) -> Any:
                assert (given, more) == wanted
                return answer()

            monkeypatch.setattr(place, method, load)

        libraries = other_libraries
        loads(clip, "load", ((name,), {"device": "cpu"}), lambda: (libraries.in_openai(), None))
        loads(
            package, "create_model", ((asked[0],), {"pretrained": "openai"}), libraries.in_open_clip
        )
        loads(
            transformers.CLIPModel, "from_pretrained", ((asked[1],), {}), libraries.in_transformers
        )
        predictor.run.cfg.defrost()
        predictor.run.cfg.MODEL.BACKBONE.NAME = name

    return pretend


@pytest.mark.slow
@pytest.mark.parametrize("method", ["CoOp", "TransformImage", "LinearProbe"])
def test_the_matrix_s_code_runs_with_each_library(
    method: str, trained: Trained, data: Path, tmp_path: Path, with_tiny, monkeypatch
):
    pytest.importorskip("safetensors")
    predictor, file = Predictor.load(trained(method)), tmp_path / "x.safetensors"
    KINDS["classifier"](predictor, file)
    answers = expected(predictor, pictures(data))
    with_tiny(predictor, "ViT-B/16")
    Path(f"{file}.md").write_text(card(predictor, "classifier", file))
    said = said_by(file, pictures(data), monkeypatch)
    assert said == dict.fromkeys(LIBRARIES, answers)


@pytest.mark.slow
def test_onnx_s_code_runs(coop: Path, data: Path, tmp_path: Path, monkeypatch):
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    file = tmp_path / "x.onnx"
    assert command("export", coop, file, "--as", "onnx") == 0
    said = said_by(file, pictures(data), monkeypatch)
    assert said == {"": expected(Predictor.load(coop), pictures(data))}


@pytest.mark.slow
def test_the_libraries_know_the_names():
    package = pytest.importorskip("open_clip")
    known = package.list_pretrained()
    assert all((name, "openai") in known for name, _ in NAMES.values())


def test_prompts_come_with_their_commands(coop: Path, data: Path, tmp_path: Path, capsys):
    import shlex

    import predict
    from prompts.__main__ import main

    pytest.importorskip("safetensors")
    file = tmp_path / "coop.safetensors"
    assert command("export", coop, file, "--as", "prompts") == 0
    text = Path(f"{file}.md").read_text()
    first, second = re.search(r"```bash\n(.*)\n(.*)\n```", text).groups()
    places = {file.name: str(file), "FOLDER": str(tmp_path / "new"), "PICTURE": pictures(data)[0]}
    first, second = ([places.get(w, w) for w in shlex.split(x)] for x in (first, second))
    assert first[:3] == ["python", "-m", "prompts"] and second[:2] == ["python", "predict.py"]
    main(first[3:])
    predict.main(predict.build_parser().parse_args(second[2:]))
    assert "probability" in capsys.readouterr().out


def test_it_says_what_it_is(coop: Path, tmp_path: Path):
    pytest.importorskip("safetensors")
    file = tmp_path / "coop.safetensors"
    assert command("export", coop, file, "--as", "prompts") == 0
    text = (tmp_path / "coop.safetensors.md").read_text()
    record = json.loads((coop / "results.jsonl").read_text())
    accuracy = f"{record['metrics']['accuracy']:.1f}% of {record['total']} test images"
    for part in ("# CoOp for 5 classes", "EuroSAT, base classes, 4 shots", accuracy, "Forest"):
        assert part in text
    for digest in (record["weights"]["sha256"], content_digest(file)):
        assert digest in text
    assert (
        command("export", coop, file, "--as", "prompts", "--classes", "a,<b>", "--overwrite") == 0
    )
    text = (tmp_path / "coop.safetensors.md").read_text()
    assert "of the classes it was trained on" in text and "It was trained on others" in text
    assert r"a, \<b\>." in text, "shown, and not obeyed"


@pytest.mark.slow
def test_what_learns_nothing_or_at_once(trained: Trained, tmp_path: Path):
    file = tmp_path / "x"
    file.touch()
    zero = card(Predictor.load(trained("ZeroshotCLIP")), "onnx", file)
    assert "| made for | EuroSAT" in zero and "nothing is learned" in zero
    assert "without gradient descent" in card(Predictor.load(trained("LinearProbe")), "onnx", file)


def test_own_images_have_their_folder_s_name(tmp_path: Path, data: Path):
    name = "my birds"
    for c in ("a", "b"):
        (tmp_path / name / c).mkdir(parents=True)
        for i, path in enumerate((data / "eurosat/2750/Forest").glob("*.jpg")):
            (tmp_path / name / c / f"{i}.jpg").write_bytes(path.read_bytes())
    out = tmp_path / "run"
    flags = {"dataset": "folder", "subsample_classes": "all", "trainer": "ZeroshotCLIP"}
    train_run(tmp_path / name, out, **flags)
    assert "own images, my birds" in card(Predictor.load(out), "onnx", out / "config.yaml")
