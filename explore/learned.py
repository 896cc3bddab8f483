"""What a run has learned: the words nearest to its vectors, and its prompts as tokens."""

from __future__ import annotations

from collections.abc import Iterator

from dassl.utils import UserError
from encoders.tokens import tokenizer
from explore.runs import Seen
from pages import Cell, Code, Column, Prompts, Table
from pages.parts import Block
from prompts import Predictor
from prompts.words import interpret, word

NEAREST = 3
CLASSES = 4  # whose prompts, or class-specific words, are shown
TEMPLATES = 3

Token = tuple[str, str]


def learned(run: Seen) -> tuple[list[Block], list[Block]]:
    """Returns what shows a run's nearest words, and what shows its prompts."""
    try:
        predictor = Predictor.load(run.folder)
    except UserError as error:
        sentence = f"{run.name}: what it learned cannot be loaded: {error}"
        return [Code(sentence)], [Code(sentence)]
    return (list(_words(run, predictor)) if run.learns else []), [_prompts(run, predictor)]


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
            f"{len(found) - CLASSES} more classes have vectors of their own; this shows all:",
            f"python -m prompts interpret {run.folder}",
        )


def _prompts(run: Seen, predictor: Predictor) -> Block:
    learner = getattr(getattr(predictor.trainer, "model", None), "prompt_learner", None)
    names = predictor.classnames[:CLASSES]
    if hasattr(learner, "sequence"):
        prompts = [_read(learner.sequence(c)) for c in range(len(names))]
    elif hasattr(predictor.trainer, "templates"):
        texts = predictor.trainer.templates()[:TEMPLATES]
        prompts = [_written(t.format(n.replace("_", " "))) for n in names for t in texts]
    else:
        return Code(f"{run.name} has no prompts that could be shown as tokens.")
    left = len(predictor.classnames) - len(names)
    more = f"… and {left} more {'class' if left == 1 else 'classes'}" if left else ""
    return Prompts(run.title, prompts, more)


def _read(sequence: list[int]) -> list[Token]:
    """A prompt's tokens; the first and the last are CLIP's marks."""
    tokens: list[Token] = [("mark", "start")]
    first = max(sequence, default=0, key=lambda number: (number < 0, number))
    for number in sequence[1:-1]:
        if number < 0:  # learned vector i is -1 - i, see `encoders.prompt_tree.learned_token`
            tokens.append(("learned", f"v{first - number + 1}"))
        else:
            tokens.append(("word", word(number)))
    return [*tokens, ("mark", "end")]


def _written(text: str) -> list[Token]:
    words: list[Token] = [("word", word(number)) for number in tokenizer.encode(text)]
    return [("mark", "start"), *words, ("mark", "end")]
