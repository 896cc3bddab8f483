"""Errors that a user can cause, and the hints that go with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave cannot work; `train.py` prints it alone, exit code 2."""

    def __str__(self) -> str:
        text = super().__str__()
        # An error in a loader's worker process comes wrapped in that process' traceback.
        if "Original Traceback" in text:
            text = text.rpartition(f"{type(self).__name__}: ")[2].strip()
        return text


class ConfigError(UserError, ValueError):
    """One or more wrong settings, each named by its full key."""

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError, ValueError):
    """A dataset, a split file or an image is not what it should be."""


class CheckpointError(UserError, ValueError):
    """A weights file does not fit the model, or is not one we are willing to open."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that was asked for does not exist."""


class NonFiniteLossError(UserError, FloatingPointError):
    """The loss became infinite or NaN."""


class NonFiniteScoresError(UserError, FloatingPointError):
    """Scores to evaluate are infinite or NaN.

    Attributes:
        position: of the first such item among those that were evaluated, from 0; None: not known.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class OutputFolderError(UserError):
    """An output folder holds another run, or cannot be used."""


class UnknownNameError(UserError, KeyError):
    """A name that no registry or table holds."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0])


def closest(name: str, allowed: Iterable[str]) -> str:
    """Returns " Did you mean 'sgd'?" for the nearest allowed name, or "" if none is near."""
    by_lower = {str(a).lower(): str(a) for a in allowed}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ""


def not_one_of(what: str, given: object, allowed: Iterable[str]) -> str:
    """The sentence for a wrong choice: what was given, what is allowed, what is nearest."""
    allowed = [str(a) for a in allowed]
    return (
        f"{what} is {given!r}; expected one of {', '.join(allowed)}.{closest(str(given), allowed)}"
    )
