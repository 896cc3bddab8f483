"""The root node: yacs plus `_BASE_` inheritance between YAML files and complete error reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from dassl.utils.errors import ConfigError, MissingFileError, UserError, closest

BASE_KEY = "_BASE_"


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
        for source, tree in _with_ancestors(Path(cfg_filename)):
            self._merge_pairs(_leaves(tree), str(source))

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
        if isinstance(original, str) and isinstance(value, str):
            node[leaf] = value  # a text is taken as it stands: '16' is no number here
            return
        if isinstance(original, float) and type(CfgNode._decode_cfg_value(value)) is int:
            value = float(value)  # "OPTIM.LR 1", which yacs alone refuses
        try:
            super().merge_from_list([key, value])
        except ValueError:
            kind = type(original).__name__
            raise ConfigError(
                f"{key} is {value!r}{where}; expected {kind}, for example {original!r}."
            ) from None


@contextmanager
def collect_problems() -> Iterator[Callable]:
    """Yields `attempt(function, *args)`, which keeps users' mistakes; all are raised at the end."""
    errors: list[UserError] = []

    def attempt(function: Callable, *args: Any) -> None:
        try:
            function(*args)
        except (ConfigError, MissingFileError) as error:
            errors.append(error)

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


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Removes the settings of all trainers but `trainer`, in place: printed configs get shorter."""
    for name in list(cfg.TRAINER):
        if name not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(name)


def _leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _with_ancestors(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """Returns [(file, tree), ...], the oldest ancestor first."""
    if not path.is_file():
        asked = f" (named as {BASE_KEY} by {seen[-1]})" if seen else ""
        raise MissingFileError(f"config file {path} does not exist{asked}")
    if path.resolve() in seen:
        raise ConfigError(f"{path} inherits from itself through {BASE_KEY}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}; expected KEY: value lines")
    base = tree.pop(BASE_KEY, None)
    parents = _with_ancestors(path.parent / base, (*seen, path.resolve())) if base else []
    return [*parents, (path, tree)]
