"""Names of classes for the prompts: matched to the classes in one way only, or refused."""

from __future__ import annotations

import ast
import csv
import html
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dassl.utils import DataError, MissingFileError
from dassl.utils.errors import closest
from dassl.utils.files import listed, parse_json
from dassl.utils.logger import get_logger
from dassl.utils.text import counted, on_one_line
from datasets.readers.class_order import number, numbers_of, other_order
from datasets.readers.text_files import find_file, read_text

logger = get_logger(__name__)

KEY = "DATASET.CLASSNAMES"
EXPECTED = (
    "expected names in label order, {class: name}, or a file: JSON with one of these, or text with "
    "a name a line or lines 'class<tab>name'"
)
WRAPPERS = ("names", "classes", "class_names", "classnames", "class_to_idx", "idx_to_class")
HEADERS = (  # of columns in files of names
    *("class", "classes", "class_name", "classname", "classnames", "folder", "label", "labels"),
    *("id", "idx", "index", "name", "names", "category", "path", "directory", "prompt", "title"),
)
BRACKETS = {"[": "]", "{": "}", "(": ")"}
LONGEST = 500  # letters in a line; CLIP reads 77 tokens
OTHER_FORMATS = (".yaml", ".yml", ".xml", ".xlsx", ".xls", ".ods", ".pkl", ".npy", ".pt", ".mat")


def class_names(setting: Any, classes: list[str], root: Path, encoding: str = "") -> list[str]:
    """Returns the names for the prompts in label order.

    Args:
        setting: DATASET.CLASSNAMES. A list in label order; {class: name}; any of these as a text,
            or "one,two,three"; or a file, also with {class: label}, {label: name}, {name: class}.
        classes: folders or labels as they are called, in label order.
        root: where the file is looked for, too.
        encoding: of a text file that does not say it (`read_text`).

    Raises:
        MissingFileError, DataError: there is no such file, or it does not match the classes.
    """
    if setting is None or setting == "":
        names = [on_one_line(name) for name in classes]
    else:
        given = setting
        if isinstance(setting, str):
            given = _read(setting, classes, root, encoding)
        given = _unwrapped(given)
        names = _by_key(given, classes) if isinstance(given, dict) else _by_place(given, classes)
    blank = [name for name, shown in zip(classes, names) if not shown.replace("_", " ").strip()]
    if blank:
        raise DataError(f"{KEY}: the name of class {blank[0]!r} is blank in a prompt; {EXPECTED}")
    return names


def alike_in_prompts(names: list[str], classes: list[str] | None = None) -> list[list[str]]:
    """Returns the groups of names that CLIP's tokenizer, or a person, reads as one.

    Args:
        names: for the prompts.
        classes: what to call them in the answer; None: by these names.
    """
    groups: dict[str, list[str]] = {}
    for name, shown in zip(names, classes or names):
        plain = unicodedata.normalize("NFC", html.unescape(html.unescape(name)))
        plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
        groups.setdefault(" ".join(plain.replace("_", " ").lower().split()), []).append(shown)
    return [group for group in groups.values() if len(group) > 1]


# --- matching -------------------------------------------------------------------------------------


def _by_key(given: dict[str, Any], classes: list[str]) -> list[str]:
    """Matches {class: name}, {class or name: label}, or {label: name}."""
    keys, values = list(given), [_text(value) for value in given.values()]
    labels = _labels(values)
    if labels is not None and numbers_of(keys) is None:  # {"cat": 0}
        names = {str(label): key for label, key in zip(labels, keys)}
        if {_plain(key) for key in keys} == {_plain(name) for name in classes}:
            return list(classes)  # the classes under their own names; their numbering is not ours
        return _by_label(names, classes)
    find = _finder(classes)
    if numbers_of(keys) is None and not any(map(find, keys)) and all(map(find, values)):
        keys, values = values, keys  # {name: class}
    unknown = [key for key in keys if find(key) is None]
    numbered = numbers_of(classes) is not None
    if len(unknown) == len(keys) and _labels(keys) is not None and not numbered:  # {"0": "cat"}
        return _by_label(dict(zip(keys, values)), classes)
    if unknown:
        raise DataError(
            f"{KEY} names classes that the data does not have ({len(unknown)}): {listed(unknown)}."
            f"{closest(unknown[0], classes)} The data has {len(classes)}: {listed(classes)}."
        )
    if numbers_of(values) is not None and not numbered:
        raise DataError(f"{KEY} gives numbers ({listed(values)}) to classes, not names; {EXPECTED}")
    named: dict[str, str] = {}
    for key, value in zip(keys, values):
        name = str(find(key))
        if named.setdefault(name, value) != value:
            raise DataError(f"{KEY} calls class {name!r} both {named[name]!r} and {value!r}")
    if len(named) < len(classes):
        own = [name for name in classes if name not in named]
        them = counted(len(own), "class", "classes")
        logger.warning(f"Note: names of their own are kept by {them}: {listed(own)}")
    return [named.get(name, name) for name in classes]


def _by_label(names: dict[str, str], classes: list[str]) -> list[str]:
    """Matches {label: name}: by number to classes that are numbers, or else by place."""
    if numbers_of(classes) is not None:
        return _by_key(names, classes)
    ordered = sorted((number(label) or 0, name) for label, name in names.items())
    return _by_place([name for _, name in ordered], classes)


def _by_place(given: Any, classes: list[str]) -> list[str]:
    """Matches a list; by the names themselves if they are those of the classes."""
    if not isinstance(given, list | tuple) or not given:
        raise DataError(f"{KEY} is {given!r}; {EXPECTED}")
    names = [_text(name) for name in given]
    if not all(names):
        raise DataError(f"{KEY} holds a blank name ({names!r}); {EXPECTED}")
    if len(names) != len(classes):
        raise DataError(
            f"{KEY} has {counted(len(names), 'name')}, but the data has {len(classes)} classes: "
            f"{listed(classes)}. Give one name a class, in this order."
        )
    plain, own = [_plain(name) for name in names], [_plain(name) for name in classes]
    if plain == own:
        return names
    if len(set(own)) == len(own) and set(plain) == set(own):
        logger.warning(f"Note: {KEY} lists the classes in another order; matched by name")
        named = dict(zip(plain, names))
        return [named[name] for name in own]
    known = set(own)
    elsewhere = [i for i, name in enumerate(plain) if name in known and own[i] != name]
    if elsewhere:
        i = elsewhere[0]
        raise DataError(
            f"{KEY} has {names[i]!r} at place {i + 1}, where the class is {classes[i]!r}, and "
            f"{classes[own.index(plain[i])]!r} is another one; {_as_pairs(classes)}"
        )
    ends = [_ending(name, own) for name in plain]  # "blue jay" is jay's, wherever it stands
    if len(set(ends) - {None}) == len(classes) and ends != list(range(len(classes))):
        i = next(i for i, place in enumerate(ends) if place != i)
        raise DataError(
            f"{KEY} has {names[i]!r} at place {i + 1}, where the class is {classes[i]!r}; "
            f"{_as_pairs(classes)}"
        )
    other = other_order(classes)
    if other is not None:
        i = next(i for i, name in enumerate(classes) if name != other[i])
        orders = " or ".join(", ".join(order[i : i + 2]) for order in (classes, other))
        raise DataError(
            f"{KEY} is a list, and the classes can be ordered in two ways: {orders}; "
            f"{_as_pairs(classes)}"
        )
    return names


def _ending(name: str, classes: list[str]) -> int | None:
    """Returns the place of the longest class that a name ends with, as a word of its own."""
    found = [i for i, own in enumerate(classes) if f" {name}".endswith(f" {own}")]
    return max(found, key=lambda i: len(classes[i]), default=None)


def _as_pairs(classes: list[str]) -> str:
    return (
        "say which name is whose, in a file with lines 'class<tab>name' or JSON such as "
        + json.dumps({classes[0]: "..."}, ensure_ascii=False)
    )


def _finder(classes: list[str]) -> Callable[[str], str | None]:
    """Returns what finds the class that a key means: as written, or the same number."""
    by_name = {unicodedata.normalize("NFC", name): name for name in classes}
    values = numbers_of(classes)
    by_number = dict(zip(values, classes)) if values is not None else {}

    def find(key: str) -> str | None:
        name = by_name.get(unicodedata.normalize("NFC", key))
        return name if name is not None else by_number.get(number(key))

    return find


def _labels(texts: Iterable[str]) -> list[int] | None:
    """Returns labels that count from 0 or 1, each once, in any order; None if they are others."""
    values = numbers_of(list(texts))
    if not values or sorted(values) not in (
        list(range(len(values))),
        list(range(1, len(values) + 1)),
    ):
        return None
    return values


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFC", name).casefold()
    return " ".join(text.replace("_", " ").replace("-", " ").split())


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{KEY} holds {value!r} where a name is meant; {EXPECTED}")
    return on_one_line(str(value))


# --- reading --------------------------------------------------------------------------------------


def _read(setting: str, classes: list[str], root: Path, encoding: str) -> Any:
    file = find_file(setting, root)
    if file is None and re.match(r"\s*([\[{]|\([^()]*\)\s*$)", setting):
        return _typed(setting.strip())
    if file is None and "," in setting:
        return setting.split(",")
    if file is None:
        raise MissingFileError(
            f"{KEY} is {setting!r}, which is no file, neither here nor in {root}; expected a file, "
            "or names separated by commas"
        )
    if file.suffix.lower() in OTHER_FORMATS:
        raise DataError(f"{KEY} is {file}, of a kind that is not read; {EXPECTED}")
    text = read_text(file, encoding)
    if file.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        return _read_json(file, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and all(len(line) > 2 and line[0] == line[-1] == lines[0][0] for line in lines):
        quote = lines[0][0]
        lines = [line[1:-1].strip() for line in lines] if quote in "'\"`" else lines
    if any(len(line) > LONGEST for line in lines):
        raise DataError(f"{file} has a line of more than {LONGEST} letters; {EXPECTED}")
    return _pairs(file, lines, classes) or lines


def _typed(text: str) -> Any:
    """Returns the list or dictionary that was typed, also without the quotes that a shell takes."""
    try:
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Dict):
            keys, values = (
                [ast.literal_eval(part) for part in parts if part]
                for parts in (node.keys, node.values)
            )
            return _once([(str(key), value) for key, value in zip(keys, values)])
        return ast.literal_eval(node)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        inner = text[1:-1]
    if text[-1] != BRACKETS[text[0]] or any(mark in inner for mark in "[]{}'\""):
        raise DataError(f"{KEY} is {text!r}, of which brackets or quotes are wrong; {EXPECTED}")
    parts = [part.strip() for part in inner.split(",") if part.strip()]
    pairs = [part.partition(":") for part in parts]
    return _once([(key.strip(), name) for key, _, name in pairs]) if text[0] == "{" else parts


def _read_json(file: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON ({error}); {EXPECTED}") from None


def _unwrapped(given: Any) -> Any:
    """Returns {class: name} for a list of pairs, and what a dictionary has under "names"."""
    if isinstance(given, dict):
        inner = [given[key] for key in WRAPPERS if isinstance(given.get(key), dict | list)]
        return inner[0] if len(inner) == 1 else {str(k): v for k, v in given.items()}
    is_list = isinstance(given, list | tuple) and given
    if is_list and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
        return _once([(_text(key), value) for key, value in given])
    return given


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise DataError(f"{KEY} names {listed(twice)} more than once; give each class one name")
    return dict(pairs)


def _pairs(file: Path, lines: list[str], classes: list[str]) -> dict[str, str] | None:
    """Returns lines of class and name, or of name and label, as pairs; None: a plain list."""
    find, known = _finder(classes), set(classes)
    for delimiter in "\t;,":
        table = _table(lines, delimiter)
        if table and (
            all(find(key) for key, _ in table)
            or all(find(name) for _, name in table)
            or _tells_labels(table)
        ):
            return _once(table)
    begin = [_after_class(line, known) for line in lines]
    matched = [pair for pair in begin if pair is not None]
    if matched and len(matched) == len(lines):
        return _once(matched)
    if len(matched) > len(lines) / 2:
        odd = lines[begin.index(None)]
        raise DataError(
            f"{file}: most lines begin with a class, but {odd!r} does not; write lines "
            "'class<tab>name' alone, or names alone"
        )
    for pattern, key, value in (
        (r"(\d{1,9})[\s.:=)-]+(.*)", 1, 2),  # 0: cat
        (r"(.+?)[\s:=]+(\d{1,9})", 1, 2),  # cat 0
    ):
        found = [re.fullmatch(pattern, line) for line in lines]
        if len(lines) > 1 and all(found):
            table = [(match.group(key), match.group(value)) for match in found if match]
            # "kind 0", "kind 1": names that end in numbers, no pairs
            if _tells_labels(table) and len(dict(table)) == len(table):
                return _once(table)
    return None


def _tells_labels(table: list[tuple[str, str]]) -> bool:
    keys, values = ([pair[side] for pair in table] for side in (0, 1))
    return (_labels(keys) is None) != (_labels(values) is None)


def _table(lines: list[str], delimiter: str) -> list[tuple[str, str]] | None:
    """Returns the rows of two values, without a header; None if there are other rows."""
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    if not rows or any(len(row) != 2 for row in rows):
        return None
    if len(rows) > 1 and all(cell.strip().casefold() in HEADERS for cell in rows[0]):
        rows = rows[1:]
    return [(key.strip(), value.strip()) for key, value in rows]


def _after_class(line: str, classes: set[str]) -> tuple[str, str] | None:
    """Returns the class that a line begins with, the longest, and the name behind it."""
    line = unicodedata.normalize("NFC", line)
    for gap in reversed(list(re.finditer(r"\s*(?:[:=|]|->|\s-\s)\s*|\s+", line))):
        if line[: gap.start()] in classes and line[gap.end() :]:
            return line[: gap.start()], line[gap.end() :]
    return None
