"""Small tools outside the golden cases."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from dassl.utils.tools import without_garbage_collection

ROOT = Path(__file__).resolve().parents[2]
# These take configurations.
NEED_YACS = {"plugins", "results"}


@pytest.mark.slow
def test_utilities_need_no_yacs():
    """The encoders use them, and take no configuration."""
    names = {path.stem for path in (ROOT / "dassl/utils").glob("*.py")} - {"__init__", *NEED_YACS}
    modules = ", ".join(["dassl.utils", *(f"dassl.utils.{name}" for name in sorted(names))])
    code = f"import sys; sys.modules['yacs'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


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
