"""Name → class tables: how trainers, datasets and evaluators are found by configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dassl.utils.errors import ConfigError, UnknownNameError, not_one_of


class Registry:
    """A table of classes or functions by their `__name__`.

    A name that two files register stands for neither: asking for it is an error, and the files can
    still be imported, for their other names. The same file may be run again, as in a notebook.

    >>> MODELS = Registry("MODEL")
    >>> @MODELS.register()
    ... class MyModel: ...
    >>> MODELS.get("MyModel") is MyModel
    True
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._obj_map: dict[str, Any] = {}
        self._rivals: dict[str, Path] = {}  # name → the other file that registered it

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Registers `obj`, or returns a decorator that does.

        Args:
            obj: the class or function; its `__name__` is the key.
            force: replace an entry that another file made.
        """
        if obj is None:
            return lambda target: self.register(target, force=force)
        name = obj.__name__
        if force:
            self._rivals.pop(name, None)
        elif name in self._obj_map and file_of(self._obj_map[name]) != file_of(obj):
            self._rivals[name] = file_of(obj)
            return obj
        self._obj_map[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """Returns the entry called `name`.

        Raises:
            UnknownNameError: (a KeyError) there is none; the message lists the names there are.
            ConfigError: two files registered it; the message names both.
        """
        if name not in self._obj_map:
            raise UnknownNameError(not_one_of(f"{self._name} name", name, self.registered_names()))
        if name in self._rivals:
            one, other = file_of(self._obj_map[name]), self._rivals[name]
            raise ConfigError(
                f"{self._name} name {name!r} is registered by two files, {one} and {other}. Keep "
                "one of them, which may take the other's place, give a class another name, or "
                "register one with force=True."
            )
        return self._obj_map[name]

    def forget(self, file: Path) -> None:
        """Forgets what a file registered, as another takes its place."""
        for name in [name for name, obj in self._obj_map.items() if file_of(obj) == file]:
            del self._obj_map[name]

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map

    def registered_names(self) -> list[str]:
        return list(self._obj_map)


def file_of(obj: Any) -> Path:
    """Returns the file that defines a class or function; of a notebook, `__main__`."""
    module = sys.modules.get(obj.__module__)
    return Path(getattr(module, "__file__", None) or obj.__module__)


def check_availability(
    requested: str, available: Iterable[str], what: str = "The requested name"
) -> None:
    """Raises UnknownNameError (a KeyError) unless `requested` is among `available`."""
    available = list(available)
    if requested not in available:
        raise UnknownNameError(not_one_of(what, requested, available))
