"""Nearest words: of any run, by both metrics, for each class and for each picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch

from dassl.utils import ConfigError, load_checkpoint
from dassl.utils.cli import run_cli
from encoders.openai import read_weights
from encoders.tokens import OPENAI, tokenizer
from prompts import Predictor
from prompts.__main__ import main
from prompts.words import interpret, nearest, word
from tests.prompts.runs import pictures, train


def test_nearest_words():
    table = torch.eye(4)
    ids, distances = nearest(torch.tensor([[0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]), table)
    assert ids[:, 0].tolist() == [0, 2]
    assert distances[:, 0].tolist() == pytest.approx([0.1, 1.0])
    with pytest.raises(ConfigError, match="class-specific"):
        nearest(torch.zeros(2, 3, 4), table)
    with pytest.raises(ConfigError, match="the metric is 'dot'"):
        nearest(torch.zeros(3, 4), table, metric="dot")


def test_the_metrics_differ():
    table = torch.tensor([[1.0, 0.0], [6.0, 6.0], [0.0, 1.0]])
    vector = torch.tensor([[1.0, 0.9]])  # near to the first, in the direction of the second
    assert nearest(vector, table)[0].tolist() == [[0]]
    ids, cosines = nearest(vector, table, k=3, metric="cosine")
    assert ids.tolist() == [[1, 0, 2]]
    assert cosines[0].tolist() == sorted(cosines[0].tolist(), reverse=True)


def test_words_that_a_context_started_from(data: Path, tmp_path: Path):
    folder = train(data, tmp_path, "CoOp", "OPTIM.LR", "1e-9", "OPTIM.WARMUP_EPOCH", "0")
    [words] = interpret(Predictor.load(folder), k=2)
    assert words.of == ""
    assert [row[0][0] for row in words.nearest] == ["a", "photo", "of", "a"]
    assert all(row[0][1] < 1e-4 < row[1][1] for row in words.nearest)


def test_a_context_for_each_class(csc: Path):
    predictor = Predictor.load(csc)
    found = interpret(predictor)
    assert [words.of for words in found] == predictor.classnames
    ctx = load_checkpoint(str(csc / "prompt_learner/model.pth.tar-1"))["state_dict"]["ctx"]
    table = read_weights("tiny")["token_embedding.weight"]
    for words, context in zip(found, ctx):
        expected = (context[:, None] - table).norm(dim=-1).argmin(dim=1)  # (M,)
        assert [row[0][0] for row in words.nearest] == [word(int(i), OPENAI) for i in expected]


def test_pictures_shift_cocoop_s_context(cocoop: Path, coop: Path, data: Path):
    """The vectors are those that the model itself puts into its prompts."""
    predictor, paths = Predictor.load(cocoop), pictures(data)[:3]
    model, table = predictor.trainer.model, read_weights("tiny")["token_embedding.weight"]
    with torch.no_grad():
        images = torch.cat(list(predictor.images(paths)))
        contexts = model.prompt_learner.context(model.encode_image(images))  # (B, M, D)
    found = interpret(predictor, paths, metric="cosine")
    assert [words.of for words in found] == paths
    for words, context in zip(found, contexts):
        _, cosines = nearest(context, table, metric="cosine")
        values = [row[0][1] for row in words.nearest]
        assert values == pytest.approx(cosines[:, 0].tolist(), abs=1e-5)
    with pytest.raises(ConfigError, match="leave --pictures out"):
        interpret(Predictor.load(coop), paths)


def test_several_contexts_for_all_classes(data: Path, tmp_path: Path):
    found = interpret(Predictor.load(train(data, tmp_path, "PLOT")))
    assert [words.of for words in found] == ["prompt 1", "prompt 2", "prompt 3"]
    assert all(len(words.nearest) == 2 for words in found)


def test_the_command(coop: Path, cocoop: Path, csc: Path, data: Path, capsys):
    main(["interpret", str(coop), "--nearest", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4 and len(lines[2].split()) == 1 + 2 * 2
    main(["interpret", str(coop), str(cocoop)])  # the paper's layout
    out = capsys.readouterr().out
    assert coop.name in out and cocoop.name in out and out.splitlines()[2].startswith("1 ")
    main(["interpret", str(csc), "--format", "csv", "--metric", "cosine"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 5 * 2 * 3 and -1 <= float(rows[0]["cosine"]) <= 1
    assert rows[0]["word"].lstrip("'") in {w.replace("</w>", "") for w in tokenizer.encoder}
    for wrong, expected in (
        (["interpret", str(csc), str(coop)], "side by side"),
        (["interpret", str(coop), "--nearest", "0"], "0 words are asked for"),
        (["interpret", str(data)], "holds no config.yaml"),
    ):
        assert run_cli(lambda wrong=wrong: main(wrong)) == 2
        said = capsys.readouterr()
        assert expected in said.err and not said.out
