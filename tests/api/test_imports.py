"""Imports point one way: train.py → {trainers, datasets} → dassl, and downwards inside it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYER = {"utils": 0, "config": 0, "metrics": 0, "data": 1, "evaluation": 1, "optim": 1, "engine": 2}
MAY_IMPORT = {  # package → project packages it may import
    "dassl": {"dassl"},
    "trainers": {"dassl", "trainers"},
    "datasets": {"dassl", "datasets"},
}
PROJECT = {"dassl", "trainers", "datasets", "sweep", "benchmarks", "train", "tests", "clip"}


def imported(path: Path) -> set[str]:
    """Returns the full names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level]
            names.add(".".join([*package, node.module or ""]).strip("."))
    return names


def source_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below(package: str):
    for path in source_files(package):
        found = {name.split(".")[0] for name in imported(path)} & PROJECT
        # One file of trainers/ touches OpenAI's package.
        allowed = MAY_IMPORT[package] | ({"clip"} if path.name == "clip_utils.py" else set())
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {sorted(found - allowed)}"


def test_the_entry_point_knows_no_sweep():
    found = {name.split(".")[0] for name in imported(ROOT / "train.py")} & PROJECT
    assert found == {"dassl", "datasets", "trainers"}


def test_layers_of_the_engine():
    for path in source_files("dassl"):
        part = path.relative_to(ROOT / "dassl").parts[0]
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "dassl" and len(parts) > 1 and part in LAYER:
                target = parts[1]
                assert target == part or LAYER[target] <= LAYER[part], (
                    f"{path.relative_to(ROOT)} imports {name}, which lies above it"
                )


def test_the_scan_sees_imports(tmp_path: Path):
    assert len(source_files("dassl")) > 25
    assert "clip" in {n.split(".")[0] for n in imported(ROOT / "trainers" / "clip_utils.py")}
