"""Texts → token ids, by OpenAI's byte-pair encoding."""

from __future__ import annotations

from torch import Tensor

from dassl.utils import ConfigError
from encoders.openai import tokenize_texts, tokenizer

__all__ = ["token_count", "tokenize", "tokenizer"]


def token_count(text: str) -> int:
    """Returns the number of tokens of a text, start and end not counted."""
    return len(tokenizer.encode(text))


def tokenize(texts: list[str], context_length: int = 77, names: list[str] | None = None) -> Tensor:
    """Turns texts into token ids.

    Args:
        texts: N texts.
        context_length: L, positions of the text tower.
        names: what each text is about, for the error message.

    Returns:
        (N, L) int64, zero after the end token (the largest id of a row).

    Raises:
        ConfigError: texts have more than L tokens, each is named; or a text holds CLIP's own marks
            for its start or end.
    """
    too_long = [
        f"the prompt of {(names or texts)[i]!r} has {token_count(text) + 2} tokens, but CLIP reads "
        f"{context_length}: shorten the class name or use fewer context words (N_CTX)"
        for i, text in enumerate(texts)
        if token_count(text) + 2 > context_length  # start and end token
    ]
    if too_long:
        raise ConfigError(too_long)
    tokens = tokenize_texts(texts, context_length=context_length)  # (N, L)
    # The end token is the largest id, the start token the one before: each stands there once.
    marks = (tokens >= tokens.max() - 1).sum(dim=1) if len(tokens) else tokens  # (N,)
    for i in (marks != 2).nonzero().flatten().tolist():
        raise ConfigError(
            f"the text {texts[i]!r} of {(names or texts)[i]!r} holds a mark that CLIP takes for "
            "the start or the end of a text; leave it out"
        )
    return tokens
