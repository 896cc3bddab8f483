"""The root node: yacs plus `_BASE_` inheritance between YAML files and complete error reports."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from dassl.config.yaml_file import MAX_DEPTH, read_yaml
from dassl.utils.errors import ConfigError, MissingFileError, UserError, closest

BASE_KEY = "_BASE_"
MAX_ANCESTORS = 20
MAX_EXPRESSION = 20_000  # characters of a value that is no text, such as "(1, 2)"


class Config(CfgNode):
    """A yacs node whose YAML files may build on one another.

    A file may name a parent relative to itself, `_BASE_: vit_b16.yaml`; it then holds only what
    differs. Branches of the tree are plain yacs nodes, because other people's `extend_cfg(cfg)`
    hangs plain nodes into it and yacs merges only nodes of one type.
    """

    @classmethod
    def _create_config_tree_from_dict(cls, dic: dict, key_list: list[str]) -> dict:
        return CfgNode._create_config_tree_from_dict(dic, key_list)

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        return CfgNode._decode_cfg_value(value)

    def merge_from_file(self, cfg_filename: str) -> None:
        """Merges a YAML file (and its `_BASE_` ancestors first).

        Raises:
            MissingFileError: the file, or a parent it names, does not exist.
            ConfigError: every unknown key and wrong type in it, all at once.
        """
        for source, tree in _with_ancestors(Path(cfg_filename).expanduser()):
            self._merge_pairs(_leaves(tree, values=set(all_keys(self))), str(source))

    def merge_from_list(self, cfg_list: list[str]) -> None:
        """Merges `["KEY", value, "KEY", value, ...]`.

        Raises:
            ConfigError: every unknown key and wrong type in it, all at once.
        """
        if len(cfg_list) % 2:
            raise ConfigError(
                f"the options {list(cfg_list)} are not KEY VALUE pairs: their number is odd"
            )
        self._merge_pairs(zip(cfg_list[0::2], cfg_list[1::2]), "")

    def _merge_pairs(self, pairs: Iterable[tuple[str, Any]], source: str) -> None:
        with collect_problems() as attempt:
            for key, value in pairs:
                attempt(self._merge_one, key, value, f" (in {source})" if source else "")

    def _merge_one(self, key: str, value: Any, where: str) -> None:
        *path, leaf = key.split(".")
        node: Any = self
        for name in path:
            node = node.get(name) if isinstance(node, CfgNode) else None
        if not isinstance(node, CfgNode) or (leaf not in node and not node.is_new_allowed()):
            raise ConfigError(f"unknown config key {key}{where}.{closest(key, all_keys(self))}")
        if isinstance(node.get(leaf), CfgNode) and not isinstance(value, dict):
            inside = ", ".join(f"{key}.{name}" for name in node[leaf])
            raise ConfigError(f"{key} is a group of keys{where}; set one of {inside}.")
        original = node.get(leaf)
        if isinstance(original, CfgNode):
            for inner, part in _leaves(value, f"{key}."):
                self._merge_one(inner, part, where)
            return
        if isinstance(original, str) and (isinstance(value, str) or value is None):
            # A text is taken as it stands: '16' is no number here. But no shell looks into files.
            at_home = value and value.startswith(("~/", "~\\"))
            node[leaf] = os.path.expanduser(value) if at_home else value or ""
            return
        wrong = f"{key} is {_shortened(value)}{where}; expected "
        decoded = _decoded(value, wrong)
        if leaf not in node:
            node[leaf] = decoded
            return
        if original is None and isinstance(decoded, dict):
            # As a text: yacs has no dictionaries as values.
            node[leaf] = value if isinstance(value, str) else json.dumps(value)
            return
        if type(original) is float and type(decoded) is int:
            decoded = float(decoded)  # "OPTIM.LR 1", which yacs alone refuses
        if isinstance(original, (list, tuple)) and isinstance(decoded, (list, tuple)):
            decoded = type(original)(_numbers_like(original, decoded, wrong))
        try:
            if decoded is None and original is not None:
                raise ValueError
            super().merge_from_list([key, decoded if not isinstance(decoded, str) else value])
        except (ValueError, AssertionError):
            expected = f"{type(original).__name__}, for example {original!r}"
            if original is None:
                expected = "a number, a text, a list or a dictionary of them"
            raise ConfigError(f"{wrong}{expected}.") from None


def _decoded(value: Any, wrong: str) -> Any:
    """Returns what a value of a file or of the command line means, such as a number for "16".

    Raises:
        ConfigError: it is an expression without bound, or holds numbers that no setting has.
    """
    if isinstance(value, str) and len(value) > MAX_EXPRESSION:
        raise ConfigError(f"{wrong}at most {MAX_EXPRESSION:,} characters.")
    try:
        decoded = CfgNode._decode_cfg_value(value)
        problem = _problem_of(decoded)
    except (RecursionError, MemoryError):  # of Python's parser; both mean deep nesting
        problem = "a value that is nested less deep"
    except (TypeError, AttributeError, AssertionError, KeyError):  # sets of lists, odd keys
        problem = "numbers, texts and lists of them"
    if problem:
        raise ConfigError(f"{wrong}{problem}.")
    return decoded


def _numbers_like(original: Sequence, given: Sequence, wrong: str) -> Sequence:
    """Returns the parts of a list as numbers, if the list that it replaces is one of numbers.

    YAML reads 1e-3 as a text, in a list as well.

    Raises:
        ConfigError: a part is no number.
    """
    if not original or not all(type(part) in (int, float) for part in original):
        return given
    parts = [CfgNode._decode_cfg_value(part) for part in given]
    if not all(type(part) in (int, float) for part in parts):
        raise ConfigError(f"{wrong}numbers, for example {original!r}.")
    return parts


def _problem_of(value: Any, depth: int = 0) -> str:
    """Returns what would be expected in place of a value, or ""."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number below 2**63"
    if isinstance(value, (float, complex)) and not abs(value) < float("inf"):
        return "a finite number"
    if isinstance(value, (dict, list, tuple, set)):
        if depth > MAX_DEPTH:
            return "a value that is nested less deep"
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return next(filter(None, (_problem_of(part, depth + 1) for part in parts)), "")
    return ""


def _shortened(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of so many digits that Python refuses to write it
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


@contextmanager
def collect_problems() -> Iterator[Callable]:
    """Yields `attempt(function, *args)`, which keeps users' mistakes; all are raised at the end.

    It returns what the function returns, or None after a mistake.
    """
    errors: list[UserError] = []

    def attempt(function: Callable, *args: Any) -> Any:
        try:
            return function(*args)
        except (ConfigError, MissingFileError) as error:
            errors.append(error)
            return None

    yield attempt
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigError([line for error in errors for line in str(error).splitlines()])


def all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    """Returns the full names of all leaves, for example "OPTIM.LR"."""
    keys = []
    for name, value in node.items():
        if isinstance(value, CfgNode):
            keys += all_keys(value, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def mark_not_determining(cfg: CfgNode, *keys: str) -> None:
    """Says that keys do not determine a number: where files lie, or how fast a run is.

    They are no part of a run's identity (`config_digest`). The owner of a key calls this in its
    `extend_cfg(cfg)`.

    Args:
        cfg: the root node.
        keys: full names of leaves or branches, such as "MODEL.FEATURES".
    """
    cfg.__dict__["_not_determining"] = (*not_determining(cfg), *keys)


def not_determining(cfg: CfgNode) -> tuple[str, ...]:
    """Returns the keys that `mark_not_determining` was called with."""
    return cfg.__dict__.get("_not_determining", ())


def note_methods(cfg: CfgNode) -> None:
    """Remembers the settings of all methods, TRAINER.* and OPTIM_*, as they are: their defaults.

    Of a run's identity, settings of other methods are a part only where they differ from these: a
    method's file that comes or goes makes no other run a new one.
    """
    nodes = {name: node for name, node in cfg.TRAINER.items() if isinstance(node, CfgNode)}
    nodes |= {name: node for name, node in cfg.items() if name.startswith("OPTIM_")}
    cfg.__dict__["_methods"] = {name: copy.deepcopy(dict(node)) for name, node in nodes.items()}


def noted_methods(cfg: CfgNode) -> dict[str, dict[str, Any]]:
    """Returns {METHOD: {key: default}}, as `note_methods` found them."""
    return cfg.__dict__.get("_methods", {})


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Removes the settings of all trainers but `trainer`, in place: printed configs get shorter."""
    for name in list(cfg.TRAINER):
        if name not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(name)


def _leaves(tree: dict, prefix: str = "", values: Container[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yields (full key, value); `values` are keys that are no branches, whatever stands there."""
    for name, value in tree.items():
        if isinstance(value, dict) and value and f"{prefix}{name}" not in values:
            yield from _leaves(value, f"{prefix}{name}.", values)
        else:
            yield f"{prefix}{name}", value


def _with_ancestors(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """Returns [(file, tree), ...], the oldest ancestor first."""
    if not path.is_file():
        asked = f" (named as {BASE_KEY} by {seen[-1]})" if seen else ""
        raise MissingFileError(f"config file {path} does not exist{asked}")
    if path.resolve() in seen:
        raise ConfigError(f"{path} inherits from itself through {BASE_KEY}")
    if len(seen) > MAX_ANCESTORS:
        raise ConfigError(f"{path} is the {len(seen)}th ancestor through {BASE_KEY}; is it meant?")
    tree = read_yaml(path)
    base = tree.pop(BASE_KEY, None)
    if not base:
        return [(path, tree)]
    if not isinstance(base, str):
        raise ConfigError(f"{BASE_KEY} is {base!r} (in {path}); expected the name of a file")
    return [*_with_ancestors(path.parent / base, (*seen, path.resolve())), (path, tree)]
