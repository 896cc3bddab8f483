"""The words of a prompt are read as they are meant, or one sentence says why not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.utils import ConfigError
from dassl.utils.text import unseen
from encoders.tokens import token_count, tokenizer
from tests.golden_recipes import fed_by, golden_clip, make_cfg
from trainers import cocoop, coop
from trainers.coop import CoOp
from trainers.custom_clip import context_words

NAMES = ["cat", "snow_leopard", "Corp."]
METHODS = {"COOP": coop, "COCOOP": cocoop}


def learner(words: str, method: str = "COOP", names: list[str] = NAMES, **options):
    settings = {f"TRAINER.{method}.{key}": value for key, value in options.items()}
    cfg = make_cfg("vit_a", {f"TRAINER.{method}.CTX_INIT": words, **settings})
    return METHODS[method].PromptLearner(cfg, names, golden_clip("vit_a"))


BLANKS = [
    "a photo of a ",
    " a photo of a",
    "a  photo of a",
    "a photo\tof a",
    "a photo of a\n",
    "a photo of\u00a0a",
    "a_photo_of_a",
    "_a__photo_of_a_",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("words", BLANKS, ids=repr)
def test_white_space_is_no_word(method, words):
    expected, got = learner("a photo of a", method), learner(words, method)
    assert got.n_ctx == 4
    assert got.prompts == expected.prompts
    assert torch.equal(got.ctx, expected.ctx)
    assert torch.equal(got.token_suffix, expected.token_suffix)
    assert got.tree.sequences == expected.tree.sequences


@pytest.mark.parametrize("words", [" ", "\t", "_", "\u3000"], ids=repr)
def test_white_space_alone_is_refused(words):
    with pytest.raises(ConfigError, match="holds no word; leave it empty"):
        learner(words)
    assert any("holds no word" in line for line in CoOp.config_problems(cfg_of(words)))


@pytest.mark.parametrize("words", ["a photo of a {}.", "a photo of a {", "{0} photo"])
def test_a_place_for_the_name_is_refused(words):
    with pytest.raises(ConfigError, match="the class name follows by itself"):
        learner(words)
    (problem,) = CoOp.config_problems(cfg_of(words))
    assert problem.startswith(f"TRAINER.COOP.CTX_INIT is {words!r}")


def cfg_of(words: str):
    return make_cfg("vit_a", {"TRAINER.COOP.CTX_INIT": words})


@pytest.mark.parametrize(
    "words", ["a photo: a", "it's a", "a (grainy) photo of a", "a photo of a,"]
)
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_punctuation_stands_where_it_was_written(words, position, capsys):
    made = learner(words, CLASS_TOKEN_POSITION=position)
    for row, name, end in zip(made.tokenized_prompts.tolist(), NAMES, made.eot.tolist()):
        text = made.tokenizer.decode(row[1:end])
        assert text.replace(" ", "") == f"{words}{name}.".replace("_", " ").replace(" ", "").lower()
    assert "CTX_INIT's" in capsys.readouterr().out, "more tokens than words are said"


@pytest.mark.parametrize("mark", ["<|endoftext|>", "<|startoftext|>"])
def test_marks_of_clip_are_refused(mark):
    with pytest.raises(ConfigError, match="takes for the start or the end of a text"):
        learner("a photo of a", names=["cat", f"dog {mark} x"])
    with pytest.raises(ConfigError, match="takes for the start or the end of a text"):
        learner(f"a {mark} of a")


@pytest.mark.parametrize("name", ["", " ", "_"])
def test_a_name_without_words_is_refused(name):
    with pytest.raises(ConfigError, match="class 1 has the name"):
        learner("a photo of a", names=["cat", name])


def test_first_prompts_are_logged_as_they_are_read(capsys, tmp_path):
    options = {"TRAINER.COOP.CTX_INIT": "a photo of a ", "OUTPUT_DIR": str(tmp_path)}
    trainer = fed_by(CoOp, NAMES, [])(make_cfg("vit_a", options))
    trainer.before_train()
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("First prompts")]
    assert '"a photo of a cat." (a | photo | of | a | cat | .)' in line
    assert "snow | leopard" in line


UNSEEN = [
    "a\u200bphoto",
    "a \u200b photo",
    "\ufeffa photo",
    "a\u00adphoto",
    "a photo\0",
    "\x1b[2Ja",
]


@pytest.mark.parametrize("words", [*UNSEEN, "a \u202ephoto", "a photo\udcff"], ids=ascii)
def test_characters_that_nobody_sees_are_refused(words):
    with pytest.raises(ConfigError, match="with characters that nobody sees") as caught:
        learner(words)
    (problem,) = CoOp.config_problems(cfg_of(words))
    assert problem.isprintable() and str(caught.value).isprintable()


@pytest.mark.parametrize("words", ["a photo&nbsp;of", "cats &amp; dogs", "a&#95;b", "&lt;a"])
def test_entities_are_refused(words):
    with pytest.raises(ConfigError, match=r"which CLIP reads as .*: write it so"):
        learner(words)


def test_letters_of_other_alphabets_are_named(capsys):
    learner("\u0430 photo of \u0430")
    assert "hardly seen: \u0430 (CYRILLIC SMALL LETTER A)\n" in capsys.readouterr().out
    assert learner("a", names=["café"]).first_prompts() == '"a café." (a | café | .)'


@pytest.mark.parametrize("words", ["a photo: a", "it's a", "snowmobiling 123", "a photo of a,"])
def test_the_rest_of_a_word_is_never_the_class_name(words):
    """The public implementation takes the first tokens behind M context vectors for the name."""
    for position in ("middle", "front"):
        options = {"TRAINER.COOP.CLASS_TOKEN_POSITION": position}
        cfg = make_cfg("vit_a", {"TRAINER.COOP.CTX_INIT": words, **options})
        (problem,) = CoOp.config_problems(cfg)
        assert "the last would stand for the class name" in problem
    assert not CoOp.config_problems(cfg_of(words))
    options["TRAINER.COOP.CTX_INIT"] = "a photo of a"
    assert not CoOp.config_problems(make_cfg("vit_a", options))


@pytest.mark.parametrize(("words", "n"), [("", 10**9), ("", 77), ("a " * 50_000, 4)])
def test_more_context_than_fits(words, n):
    with pytest.raises(ConfigError, match=r"context vectors .* do not fit: CLIP reads 77 tokens"):
        learner(words, N_CTX=n)


ODD = "aX_ \t&;#x<|>{}'.\u200b\u0430猫"


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40) | st.text(st.sampled_from(ODD), min_size=1, max_size=40))
def test_any_words_are_read_as_they_stand_or_refused(words):
    try:
        made = learner(words, names=["cat"])
    except ConfigError as error:
        assert str(error)
        return
    plain = context_words(words)
    assert context_words(f" {words}\n") == plain == " ".join(plain.split()) and not unseen(plain)
    assert made.n_ctx == len(plain.split()) > 0
    row = made.tokenized_prompts[0].tolist()
    assert row[1 : 1 + token_count(plain)] == tokenizer.encode(plain)
