"""Reading YAML files that others wrote: what is read is what stands there, and it is bounded."""

from __future__ import annotations

import codecs
import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dassl.utils.errors import ConfigError, MissingFileError, UserError

MAX_BYTES = 256 << 10  # the longest of ours has 2,000
MAX_VALUES = 10_000  # after aliases are replaced by what they stand for
MAX_DEPTH = 20
MAX_LENGTH = 10_000  # characters of a text
MAX_DIGITS = 100  # characters of a number or of a key

_MARKS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TAG = "tag:yaml.org,2002:"
# What YAML 1.1 takes for other numbers than people do: 010 is 8 there, 1:30 is 90, 1_0 is 10.
_ODD_NUMBER = re.compile(r"[-+]?0[0-7_]+|.*[:_].*")


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file of `KEY: value` lines.

    Keys are texts as they stand there, also such as ON or 1.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: it is not YAML, in another encoding than UTF-8 or one that it names by a mark,
            gives a key twice, or would become absurdly much.
    """
    if not path.is_file():
        raise MissingFileError(f"config file {path} does not exist")
    try:
        tree = deepcopy(_tree(path, _text(path)))
    except UserError:
        raise
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deep; no config needs that") from None
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
        # PyYAML lets the errors of what it calls through, for example for the date 2000-13-13.
        raise ConfigError(f"{path} holds a value that cannot be read: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}; expected KEY: value lines")
    return tree


@lru_cache(maxsize=256)  # the runs of a plan share a few files
def _tree(path: Path, text: str) -> Any:
    """Returns what a text holds; `path` is for messages."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _Check(path).values_in(root, 0)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes; is it a config file?")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not in {encoding.upper().removesuffix('-SIG')} (byte {error.start}); save "
            "it as UTF-8."
        ) from None


class _Check:
    """Looks at the nodes of a file before any value is made of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counts: dict[int, int] = {}  # values within each node, for those done
        self._open: set[int] = set()  # nodes that this one lies in

    def values_in(self, node: yaml.Node, depth: int) -> int:
        """Returns how many values a node stands for; raises ConfigError where they are too many."""
        if id(node) in self._open:
            self._refuse(node, "an alias stands within what it stands for")
        if depth > MAX_DEPTH:
            self._refuse(node, f"values are nested more than {MAX_DEPTH} deep")
        if id(node) not in self._counts:
            self._open.add(id(node))
            self._counts[id(node)] = self._count(node, depth)
            self._open.remove(id(node))
        if self._counts[id(node)] > MAX_VALUES:
            self._refuse(node, f"there are more than {MAX_VALUES:,} values")
        return self._counts[id(node)]

    def _count(self, node: yaml.Node, depth: int) -> int:
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            return 1 + sum(self.values_in(value, depth + 1) for _, value in node.value)
        if isinstance(node, yaml.SequenceNode):
            return 1 + sum(self.values_in(value, depth + 1) for value in node.value)
        number = node.tag in (f"{_TAG}int", f"{_TAG}float")
        if len(node.value) > (MAX_DIGITS if number else MAX_LENGTH):
            what = "number" if number else "text"
            self._refuse(node, f"a {what} has {len(node.value):,} characters")
        if number and _ODD_NUMBER.fullmatch(node.value):
            self._refuse(
                node,
                f"{node.value} is another number in YAML than it seems; write the number without "
                "zeros in front, ':' and '_', or the text in quotes",
            )
        return 1

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or len(key.value) > MAX_DIGITS:
                self._refuse(key, "a key is no short text")
            if key.tag != f"{_TAG}merge":
                key.tag = f"{_TAG}str"  # not the number 1, or True for the key ON
                if key.value in seen:
                    self._refuse(key, f"the key {key.value} is given twice")
                seen.add(key.value)

    def _refuse(self, node: yaml.Node, reason: str) -> None:
        line = node.start_mark.line + 1
        raise ConfigError(f"{self.path}, line {line}: {reason}")
