"""Small tools outside the golden cases."""

from __future__ import annotations

import gc

import pytest

from dassl.utils.tools import without_garbage_collection


def test_garbage_collection_goes_on_afterwards_also_after_an_error():
    with pytest.raises(KeyError), without_garbage_collection():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_garbage_collection_that_was_off_stays_off():
    gc.disable()
    try:
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
