"""Texts → token ids: OpenAI's byte-pair encoding, or that of another CLIP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from dassl.utils import ConfigError
from encoders.openai import tokenize_texts, tokenizer

__all__ = ["OPENAI", "Tokenizer", "token_count", "tokenize", "tokenizer", "tokenizer_of"]


@dataclass(frozen=True)
class Tokenizer:
    """How a CLIP reads texts.

    Attributes:
        encode: text → token ids, start and end not among them.
        decode: token ids → text.
        rows: N texts, L → token ids (N, L) with start and end, of texts that fit.
        end: id of the end token; None: the largest id of a row, as in OpenAI's.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    rows: Callable[[list[str], int], Tensor]
    end: int | None = None

    def count(self, text: str) -> int:
        """Returns the number of tokens of a text, start and end not counted."""
        return len(self.encode(text))

    def ends(self, tokens: Tensor) -> Tensor:
        """Token ids (N, L) → position of each end token (N,)."""
        if self.end is None:
            return tokens.argmax(dim=-1)
        return (tokens == self.end).int().argmax(dim=-1)  # the first


OPENAI = Tokenizer(
    tokenizer.encode,
    tokenizer.decode,
    lambda texts, length: tokenize_texts(texts, context_length=length),
)


def tokenizer_of(clip_model: nn.Module) -> Tokenizer:
    """Returns how a CLIP reads texts: as it says itself, or as OpenAI's."""
    return vars(clip_model).get("tokenizer", OPENAI)


def token_count(text: str) -> int:
    """Returns the number of OpenAI's tokens of a text, start and end not counted."""
    return OPENAI.count(text)


def tokenize(
    texts: list[str],
    context_length: int = 77,
    names: list[str] | None = None,
    by: Tokenizer = OPENAI,
) -> Tensor:
    """Turns texts into token ids.

    Args:
        texts: N texts.
        context_length: L, positions of the text tower.
        names: what each text is about, for the error message.
        by: the tokenizer.

    Returns:
        (N, L) int64, padded after the end token.

    Raises:
        ConfigError: texts have more than L tokens, each is named; or a text holds CLIP's own marks
            for its start or end.
    """
    too_long = [
        f"the prompt of {(names or texts)[i]!r} has {by.count(text) + 2} tokens, but CLIP reads "
        f"{context_length}: shorten the class name or use fewer context words (N_CTX)"
        for i, text in enumerate(texts)
        if by.count(text) + 2 > context_length  # start and end token
    ]
    if too_long:
        raise ConfigError(too_long)
    tokens = by.rows(texts, context_length)  # (N, L)
    if not len(tokens):
        return tokens
    # The start token and the end token: each stands there once.
    start, end = tokens[0, 0], tokens.max() if by.end is None else by.end
    marks = ((tokens == start) | (tokens == end)).sum(dim=1)  # (N,)
    for i in (marks != 2).nonzero().flatten().tolist():
        raise ConfigError(
            f"the text {texts[i]!r} of {(names or texts)[i]!r} holds a mark that CLIP takes for "
            "the start or the end of a text; leave it out"
        )
    return tokens
