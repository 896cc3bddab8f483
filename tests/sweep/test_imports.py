"""The sweep's parts import one way: report → work → plan."""

import pytest

from tests.api.test_imports import imported, source_files

PARTS = ("plan", "work", "report")
FILES = {
    f"sweep.{part}.{path.stem}": path for part in PARTS for path in source_files(f"sweep/{part}")
}


@pytest.mark.parametrize("name", FILES)
def test_parts_import_only_what_comes_before(name: str):
    part = name.split(".")[1]
    allowed = PARTS[: PARTS.index(part) + 1]
    found = {n.split(".")[1] for n in imported(FILES[name]) if n.startswith("sweep.")}
    assert found <= set(allowed), f"{name} imports {sorted(found - set(allowed))}"
