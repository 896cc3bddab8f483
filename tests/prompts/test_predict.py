"""Predicting with a run: the numbers of its own test, other classes, formats, bad input."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import predict
from dassl.utils import CheckpointError, ConfigError, UserError, load_checkpoint
from dassl.utils.cli import run_cli
from encoders.tiny import load_tiny_state_dict
from prompts import Predictor
from prompts.pictures import find_pictures
from tests.porting.conftest import foreign  # noqa: F401  # a fixture
from tests.prompts.runs import pictures, train
from tests.runs import run


def command(*arguments: object) -> int:
    parser = predict.build_parser()
    return run_cli(lambda: predict.main(parser.parse_args([str(a) for a in arguments])))


def test_no_data_has_to_be_there(coop: Path, data: Path, tmp_path: Path):
    picture = shutil.copy(pictures(data)[0], tmp_path)
    before = Predictor.load(coop).logits(picture)
    moved = shutil.copytree(coop, tmp_path / "moved")
    config = (moved / "config.yaml").read_text().replace(str(data), "/there/is/nothing")
    (moved / "config.yaml").write_text(config)
    assert torch.equal(Predictor.load(moved).logits(picture), before)


def test_batches_and_kinds_of_pictures_change_nothing(cocoop: Path, data: Path):
    predictor, paths = Predictor.load(cocoop), pictures(data)[:7]
    together = predictor.logits(paths)
    assert together.shape == (7, 5)
    for size in (1, 2, 5):
        assert torch.allclose(predictor.logits(paths, batch_size=size), together, atol=1e-4)
    opened = [Image.open(path) for path in paths]
    assert torch.allclose(predictor.logits(opened), together, atol=1e-4)
    assert predictor.logits([]).shape == (0, 5)


@pytest.mark.slow
def test_other_classes_stand_with_the_learned_context(coop: Path, data: Path, tmp_path: Path):
    """As an evaluation on them has it."""
    new = tmp_path / "new"
    flags = {"eval_only": True, "model_dir": str(coop), "load_epoch": 1, "subsample_classes": "new"}
    run(data, new, "TEST.ERROR_ANALYSIS", "True", **flags)
    names = json.loads((new / "model.json").read_text())["classnames"]
    with (new / "predictions.csv").open(newline="") as file:
        tested = list(csv.DictReader(file))
    found = Predictor.load(coop, names)([data / row["path"] for row in tested], top=1)
    assert [guess[0][0] for guess in found] == [row["predicted"] for row in tested]


def test_formats(coop: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    odd = tmp_path / "=1+1.jpg"
    shutil.copy(pictures(data)[0], odd)
    assert command(coop, odd, "--top", "2", "--format", "jsonl") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["picture"] == str(odd) and len(answer["classes"]) == 2
    assert command(coop, tmp_path, "--format", "csv", "--top", "99") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == list("12345")
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1)
    assert rows[0]["class"] == answer["classes"][0]["name"]
    out = tmp_path / "guesses.txt"
    assert command(coop, odd, "--output", out) == 0
    assert capsys.readouterr().out == ""
    assert answer["classes"][0]["name"] in out.read_text()


def test_standard_input(coop: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    paths = pictures(data)[:3]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(paths) + "\n\n"))
    assert command(coop, "-", "--format", "jsonl", "--top", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["picture"] for line in lines] == paths


def test_a_folder_s_pictures(tmp_path: Path):
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "deep/c.webp", "__MACOSX/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [Path(path).relative_to(tmp_path).as_posix() for path in find_pictures(str(tmp_path))]
    assert names == ["a.jpg", "b.PNG", "deep/c.webp"]


def test_bad_input_gets_one_sentence(
    coop: Path, csc: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    good = pictures(data)[0]
    (tmp_path / "empty").mkdir()
    text = tmp_path / "text.png"
    text.write_text("no picture at all")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(Path(good).read_bytes()[:-300])
    out = tmp_path / "guesses.csv"
    cases = {
        (coop, tmp_path / "nothing.png"): "there is no picture",
        (coop, text): "cannot be read",
        (coop, cut): "cannot be read",
        (coop, tmp_path / "empty"): "holds no picture",
        (tmp_path / "no run", good): "there is no folder",
        (tmp_path / "empty", good): "holds no config.yaml",
        (coop, good, "--classes", ""): "no class is named",
        (coop, good, "--classes", "cat,,dog"): "class 2 of 3 has no name",
        (coop, good, "--classes", "cat,_"): "class 2 has the name '_', which holds no word",
        (coop, good, "--classes", " , "): "no class is named",
        (coop, good, "--classes", "cat,dog,Cat"): "'cat' and 'Cat' are the same",
        (coop, good, "--classes", "cat," + "very " * 80 + "long dog"): "CLIP reads 77",
        (csc, good, "--classes", "cat,dog"): "a context for each of its 5 classes",
        (coop, good, "--classes-file", tmp_path / "names.txt"): "there is no file",
        (coop, good, "--template", "a {}"): "leave --template out",
        (coop, good, "--top", "0"): "expected 1 or more",
        (coop, good, "--epoch", "7"): "choose one of 1",
        (coop, good, "--device", "cuda"): "finds no GPU",
    }
    for arguments, expected in cases.items():
        assert command(*arguments, "--output", out) == 2, arguments
        said = capsys.readouterr()
        assert expected in said.err and len(said.err.splitlines()) == 1, (arguments, said.err)
        assert said.out == "" and not out.exists()


@pytest.mark.slow
def test_another_clip_is_refused(data: Path, tmp_path: Path):
    weights = tmp_path / "clip.pt"
    torch.save(load_tiny_state_dict(), weights)
    for trainer in ("CoOp", "ZeroshotCLIP"):
        folder = train(data, tmp_path / trainer, trainer, "MODEL.BACKBONE.PATH", str(weights))
        moved = tmp_path / "moved.pt"
        shutil.copy(weights, moved)
        assert Predictor.load(folder, backbone_path=str(moved)).classnames
        torch.save({k: v * 1.01 for k, v in load_tiny_state_dict().items()}, moved)
        with pytest.raises(CheckpointError, match=r"the CLIP was .* and is "):
            Predictor.load(folder, backbone_path=str(moved))


def test_another_method_s_checkpoint_is_refused(coop: Path, cocoop: Path, tmp_path: Path):
    mixed = shutil.copytree(coop, tmp_path / "mixed")
    name = "prompt_learner/model.pth.tar-1"
    shutil.copy(cocoop / name, mixed / name)
    with pytest.raises(CheckpointError, match="another method wrote it"):
        Predictor.load(mixed)


def test_old_runs_say_what_is_missing(coop: Path, data: Path, tmp_path: Path):
    old, path = shutil.copytree(coop, tmp_path / "old"), pictures(data)[0]
    (old / "model.json").unlink()
    predictor = Predictor.load(old)  # the checkpoint knows
    assert predictor(path) == Predictor.load(coop)(path)
    file = old / "prompt_learner/model.pth.tar-1"
    content = load_checkpoint(str(file))
    torch.save({key: part for key, part in content.items() if key != "made_by"}, file)
    with pytest.raises(ConfigError, match="does not say which classes"):
        Predictor.load(old)
    assert Predictor.load(old, predictor.classnames)(path) == predictor(path)
    file.unlink()
    with pytest.raises(UserError, match="training has not ended"):
        Predictor.load(old, predictor.classnames)
    (old / "model.json").write_text('{"classnames": "cat"}')
    with pytest.raises(CheckpointError, match="does not list the names"):
        Predictor.load(old)


def test_nothing_global_changes(coop: Path, data: Path):
    state = torch.get_rng_state()
    Predictor.load(coop)(pictures(data)[:2])
    assert torch.equal(torch.get_rng_state(), state)
