"""Which cases of a test `--cases` keeps."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from tests.conftest import _leave_out_cases


@dataclass(frozen=True)
class Item:
    nodeid: str


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (1, ["a[0]", "b", "c[0-x]"]),
        (2, ["a[0]", "a[6]", "b", "c[0-x]", "c[1-x]"]),
        (3, ["a[0]", "a[3]", "a[6]", "b", "c[0-x]", "c[1-x]"]),
        (9, [*(f"a[{i}]" for i in range(7)), "b", "c[0-x]", "c[1-x]"]),
    ],
)
def test_first_last_and_between(most: int, kept: list[str]):
    names = [*(f"a[{i}]" for i in range(7)), "b", "c[0-x]", "c[1-x]"]
    items = [Item(f"tests/test_x.py::{name}") for name in names]
    left_out: list[Item] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    every = list(items)
    _leave_out_cases(SimpleNamespace(hook=hook), items, most)
    assert [item.nodeid.partition("::")[2] for item in items] == kept
    assert {*items, *left_out} == {*every} and len(items + left_out) == len(every)
