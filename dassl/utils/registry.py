"""Name → class tables: how trainers, datasets and evaluators are found by configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dassl.utils.errors import UnknownNameError, not_one_of


class Registry:
    """A table of classes or functions by their `__name__`.

    >>> MODELS = Registry("MODEL")
    >>> @MODELS.register()
    ... class MyModel: ...
    >>> MODELS.get("MyModel") is MyModel
    True
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._obj_map: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Registers `obj`, or returns a decorator that does.

        Args:
            obj: the class or function; its `__name__` is the key.
            force: replace an entry of the same name instead of refusing it.

        Raises:
            KeyError: the name is taken and `force` is off.
        """
        if obj is None:
            return lambda target: self.register(target, force=force)
        name = obj.__name__
        if name in self._obj_map and not force:
            raise KeyError(f"{name} is registered already in {self._name}; pass force=True")
        self._obj_map[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """Returns the entry called `name`.

        Raises:
            UnknownNameError: (a KeyError) there is none; the message lists the names there are.
        """
        if name not in self._obj_map:
            raise UnknownNameError(not_one_of(f"{self._name} name", name, self.registered_names()))
        return self._obj_map[name]

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map

    def registered_names(self) -> list[str]:
        return list(self._obj_map)


def check_availability(
    requested: str, available: Iterable[str], what: str = "The requested name"
) -> None:
    """Raises UnknownNameError (a KeyError) unless `requested` is among `available`."""
    available = list(available)
    if requested not in available:
        raise UnknownNameError(not_one_of(what, requested, available))
