"""`from clip.simple_tokenizer import SimpleTokenizer`: OpenAI's."""

import importlib

from encoders.openai import PACKAGE

_theirs = importlib.import_module(f"{PACKAGE}.simple_tokenizer")


def __getattr__(name: str) -> object:
    return getattr(_theirs, name)
