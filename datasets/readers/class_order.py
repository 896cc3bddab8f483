"""The order of classes: one rule, and when a list of names cannot be matched to it."""

from __future__ import annotations

import math
import re
import unicodedata
from itertools import islice

from dassl.utils import DataError
from dassl.utils.errors import closest
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from dassl.utils.text import composed
from datasets.readers.parts import UNSPLIT, Parts

logger = get_logger(__name__)

LARGEST = 2**53  # whole numbers up to here are exact, however they are written


def number(text: str) -> int | None:
    """Returns the whole number that a text writes, as 7, 07, 7.0 or 7e0; None if it does not."""
    try:
        value = float(text)
    except ValueError:
        return None
    whole = math.isfinite(value) and value.is_integer() and abs(value) < LARGEST
    return int(value) if whole and "_" not in text else None


def numbers_of(names: list[str]) -> list[int] | None:
    """Returns the numbers that all names write; None if one is no number."""
    found = [number(name) for name in names]
    return [value for value in found if value is not None] if None not in found else None


def with_plain_numbers(source: object, parts: Parts) -> Parts:
    """Returns the parts of a CSV file; labels that are all numbers are written in one way.

    Raises:
        DataError: they do not count from 0 without gaps.
    """
    labels = sorted({label for rows in parts.values() for _, label in rows})
    values = numbers_of(labels)
    if not values:
        return parts
    distinct = sorted(set(values))
    gap = first_gaps(set(distinct), distinct[-1] + 1)
    if gap or distinct[0] < 0:
        lacking = max(distinct[-1] + 1 - len(distinct), 0)
        more = f" and {lacking - len(gap):,} more" if lacking > len(gap) else ""
        raise DataError(
            f"{source}: the labels are the numbers from {distinct[0]} to {distinct[-1]}, without "
            f"{listed(gap) or 'gaps'}{more}; count from 0 without gaps, or write class names "
            "instead"
        )
    written = {label: str(value) for label, value in zip(labels, values)}
    return {part: [(path, written[c]) for path, c in rows] for part, rows in parts.items()}


def first_gaps(labels: set[int], stop: int) -> list[int]:
    """Returns the first three numbers below `stop` that are no labels; `stop` may be a billion."""
    return list(islice((n for n in range(stop) if n not in labels), 3))


def ordered_classes(source: object, parts: Parts) -> list[str]:
    """Returns the classes in label order: sorted by name, or by number if all are numbers.

    Raises:
        DataError: fewer than two; some without training images; one number written in two ways.
    """
    found = {part: {name for _, name in rows} for part, rows in parts.items()}
    trained = found.get("train", found.get(UNSPLIT, set()))
    for part, names in found.items():
        unknown = sorted(names - trained)
        if unknown:
            raise DataError(
                f"{source}: {part} has classes that train does not have ({len(unknown)}): "
                f"{listed(unknown)}. Add training images of them, or take them out."
                f"{_in_other_letters(unknown[0], trained)}"
            )
        lacking = sorted(trained - names)
        if lacking:
            logger.warning(
                f"Note: {part} has no images of {len(lacking)} of the {len(trained)} classes: "
                f"{listed(lacking)}"
            )
    if len(trained) < 2:
        raise DataError(
            f"{source} has {len(trained)} class ({listed(sorted(trained)) or 'none'}); there must "
            "be two or more to tell apart"
        )
    classes = sorted(trained, key=composed)
    values = numbers_of(classes)
    if values is None:
        words = [name for name in classes if number(name) is None]
        if len(words) < len(classes) / 2:  # a label that is missing, such as NaN, or mistyped
            logger.warning(f"Note: most classes are numbers, but not {listed(words)}")
        return classes
    by_number: dict[int, str] = {}
    for name, value in zip(classes, values):
        if value in by_number:
            raise DataError(
                f"{source}: {by_number[value]!r} and {name!r} are one number; rename one of them, "
                "or put them together"
            )
        by_number[value] = name
    return [by_number[value] for value in sorted(by_number)]


def _in_other_letters(name: str, classes: set[str]) -> str:
    """Returns " Did you mean 'jay'?" if a class is called so but for case, blanks and the like."""
    near = [known for known in sorted(classes) if _as_seen(known) == _as_seen(name)]
    return closest(name, near)


def _as_seen(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name.casefold())
    plain = "".join(" " if c in "_-" else c for c in plain if unicodedata.category(c) != "Cf")
    return " ".join(plain.split())


def other_order(classes: list[str]) -> list[str] | None:
    """Returns another order in which people or tools may list the classes; None: there is none.

    Args:
        classes: in label order.
    """
    if numbers_of(classes) is not None:
        return None
    for key in (_without_case, _as_listed, _natural):
        other = sorted(classes, key=key)
        if other != classes:
            return other
    return None


def _without_case(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


def _as_listed(name: str) -> str:
    """The order of `ls` in most languages: punctuation does not count."""
    return "".join(filter(str.isalnum, _without_case(name)))


def _natural(name: str) -> list:
    """class2 comes before class10."""
    return [
        (0, int(piece), "") if piece.isdecimal() else (1, 0, piece)
        for piece in re.split(r"(\d{1,18})", _without_case(name))
        if piece
    ]
