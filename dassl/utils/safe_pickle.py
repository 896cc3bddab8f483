"""Reading pickles that others made as inert records: nothing that they name is imported or run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

# What reading may raise when the content is not what it should be.
PICKLE_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError),
    *(NotImplementedError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError),
)
_FLAT = (str, bytes, int, float, bool, type(None))


class Record:
    """Takes the place of everything that a pickle names.

    Attributes:
        name: module and name of what was to be called, or the class of the object.
        args: what the call was to get.
        state: attributes of an object.
        entries: what was put into it, where it is a kind of dictionary, such as OrderedDict.
        elements: what was put into it, where it is a kind of list.
    """

    name: str
    args: tuple
    state: dict[str, Any]
    entries: dict[Any, Any]
    elements: list[Any]

    def __new__(cls, *args: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.state, record.entries, record.elements = args, {}, {}, []
        return record

    def extend(self, elements: list) -> None:
        self.elements += elements

    def append(self, element: Any) -> None:
        self.elements.append(element)

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class InertUnpickler(_PythonUnpickler):
    """Builds plain data and records; the file is its first argument, `load()` reads one pickle.

    It stands on the unpickler that is written in Python: the one in C can be made to reserve any
    amount of memory, and to set attributes of the classes that a pickle names.
    """

    # Without those that call what this process has registered, or reserve what a file claims.
    dispatch: ClassVar[dict[int, Callable]] = {
        code: function
        for code, function in _PythonUnpickler.dispatch.items()
        if code not in pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.BYTEARRAY8
    }

    def find_class(self, module: str, name: str) -> type[Record]:
        return type("_Named", (Record,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        return Record(pid)

    def _load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, (dict, Record)):
            raise ValueError("entries are put into something that is no dictionary")
        entries = target.entries if isinstance(target, Record) else target
        entries.update(zip(_hashable(items[::2]), items[1::2]))

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append(dict(zip(_hashable(items[::2]), items[1::2])))

    def _load_additems(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise ValueError("items are put into something that is no set")
        self.stack[-1].update(_hashable(items))

    def _load_frozenset(self) -> None:
        self.append(frozenset(_hashable(self.pop_mark())))

    dispatch[pickle.SETITEM[0]] = _load_setitem
    dispatch[pickle.SETITEMS[0]] = _load_setitems
    dispatch[pickle.DICT[0]] = _load_dict
    dispatch[pickle.ADDITEMS[0]] = _load_additems
    dispatch[pickle.FROZENSET[0]] = _load_frozenset


def _hashable(keys: list) -> Iterator[Any]:
    """Yields keys that can be hashed; of a tuple in a tuple in ... that would end the process."""
    for key in keys:
        parts = key if type(key) is tuple else (key,)
        if not all(type(part) in _FLAT or isinstance(part, Record) for part in parts):
            raise ValueError(f"a key is a {type(key).__name__} of other things than names")
        yield key
