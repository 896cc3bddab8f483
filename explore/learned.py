"""What a run has learned: the words nearest to its vectors, and its prompts as tokens."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress

from dassl.command import command
from dassl.utils import ConfigError, UserError
from dassl.utils.text import counted
from encoders.tokens import Tokenizer
from explore.runs import Seen
from pages import Cell, Code, Column, Prompts, Table
from pages.parts import Block
from prompts import Predictor
from prompts.hand_written import templates_of, tokenizer_of_run
from prompts.words import interpret, word

NEAREST = 3
CLASSES = 4  # whose prompts, or class-specific words, are shown
TEMPLATES = 3

Token = tuple[str, str]


def learned(run: Seen) -> tuple[list[Block], list[Block]]:
    """Returns what shows a run's nearest words, and what shows its prompts."""
    try:
        if templates := templates_of(run.run):
            return [], [_hand_written(run, templates)]
        predictor = _predictor(run)
    except UserError as error:
        sentence = f"{run.name}: what it learned cannot be loaded: {error}"
        return [Code(sentence)], [Code(sentence)]
    return (list(_words(run, predictor)) if run.learns else []), [_prompts(run, predictor)]


def _predictor(run: Seen) -> Predictor:
    """Loads a run with the classes that are shown, or with all where it learned of each by itself.

    Some methods encode many prompts a class as they are built.
    """
    names = run.run.classnames
    if len(names) > CLASSES:
        with suppress(ConfigError):
            return Predictor.load(run.folder, names[:CLASSES])
    return Predictor.load(run.folder)


def _words(run: Seen, predictor: Predictor) -> Iterator[Block]:
    try:
        found = interpret(predictor, k=NEAREST)
    except UserError as error:
        yield Code(f"{run.name}: {error}.")
        return
    columns = [Column("vector", "The number of the learned vector, from the left.", number=True)]
    columns += [
        Column(f"{k}. word", f"The {k}. nearest word, and its Euclidean distance.")
        for k in range(1, NEAREST + 1)
    ]
    for words in found[:CLASSES]:
        rows = [
            [Cell(str(m), m), *(Cell(text, far, f"{far:.3f}") for text, far in row)]
            for m, row in enumerate(words.nearest, 1)
        ]
        of = f", {words.of}" if words.of else ""
        yield Table(f"{run.title}{of}", columns, rows)
    if len(found) > CLASSES:
        yield Code(
            "More classes have vectors of their own; this shows all:",
            f"{command('prompts')} interpret {shlex.quote(str(run.folder))}",
        )


def _hand_written(run: Seen, templates: Sequence[str]) -> Block:
    tokenizer, names = tokenizer_of_run(run.run), run.run.classnames[:CLASSES]
    texts = [t.format(n.replace("_", " ")) for n in names for t in templates[:TEMPLATES]]
    return Prompts(run.title, [_written(text, tokenizer) for text in texts], _more(run))


def _prompts(run: Seen, predictor: Predictor) -> Block:
    learner = getattr(getattr(predictor.trainer, "model", None), "prompt_learner", None)
    shown = range(min(CLASSES, len(predictor.classnames)))
    if hasattr(learner, "sequence"):
        prompts = [_read(learner.sequence(c), learner.tokenizer) for c in shown]
    elif isinstance(texts := getattr(learner, "prompts", None), list):
        prompts = [_written(texts[c], tokenizer_of_run(run.run)) for c in shown]
    else:
        return Code(f"{run.name} has no prompts that could be shown as tokens.")
    return Prompts(run.title, prompts, _more(run))


def _more(run: Seen) -> str:
    left = len(run.run.classnames) - CLASSES
    return f"… and {counted(left, 'more class', 'more classes')}" if left > 0 else ""


def _read(sequence: list[int], by: Tokenizer) -> list[Token]:
    """A prompt's tokens; the first and the last are CLIP's marks."""
    tokens: list[Token] = [("mark", "start")]
    first = max(sequence, default=0, key=lambda number: (number < 0, number))
    for number in sequence[1:-1]:
        if number < 0:  # learned vector i is -1 - i, see `encoders.prompt_tree.learned_token`
            tokens.append(("learned", f"v{first - number + 1}"))
        else:
            tokens.append(("word", word(number, by)))
    return [*tokens, ("mark", "end")]


def _written(text: str, by: Tokenizer) -> list[Token]:
    words: list[Token] = [("word", word(number, by)) for number in by.encode(text)]
    return [("mark", "start"), *words, ("mark", "end")]
