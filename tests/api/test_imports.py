"""Imports point one way:

    explore → {sweep, prompts, train} → {trainers, datasets} → features → encoders → dassl.utils
    {explore, sweep} → pages → dassl.utils
    {trainers, datasets, features} → dassl: engine → {data, evaluation, optim} → {utils, config, …}

There is no arrow upwards and no circle, and importing `encoders` registers nothing.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, ours

LAYER = {
    "stop": 0,
    "command": 0,
    "utils": 0,
    "config": 0,
    "metrics": 0,
    "modeling": 0,
    "data": 1,
    "evaluation": 1,
    "optim": 1,
    "engine": 2,
}
MAY_IMPORT = {  # package → project packages it may import
    "dassl": {"dassl"},
    "encoders": {"dassl", "encoders"},
    "features": {"dassl", "encoders", "features"},
    "trainers": {"dassl", "encoders", "features", "trainers"},
    "datasets": {"dassl", "datasets"},
    "sweep": {"dassl", "encoders", "trainers", "datasets", "train", "prompts", "pages", "sweep"},
    "prompts": {"dassl", "encoders", "features", "trainers", "datasets", "train", "prompts"},
    "pages": {"dassl", "pages"},
    "explore": {"dassl", "encoders", "datasets", "prompts", "sweep", "pages", "explore"},
    "compat": {"dassl", "encoders", "clip"},  # `clip` is what it is called by those that use it
}
PROJECT = {*MAY_IMPORT, "benchmarks", "train", "predict", "tests", "clip"}
# What one touches of OpenAI's package; in the root, `clip` is compat/clip.
TOUCH_CLIP = {"encoders/openai.py"}
# What methods inherit from, and the templates, which other people's files import from here.
SHARED = {
    *("__init__.py", "__main__.py", "clip_trainer.py", "prompt_trainer.py", "custom_clip.py"),
    *("deep_prompts.py", "hand_written.py"),
}
TEMPLATES = "imagenet_templates.py"


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
    return ours((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below(package: str):
    for path in source_files(package):
        name = path.relative_to(ROOT).as_posix()
        found = {name.split(".")[0] for name in imported(path)} & PROJECT
        allowed = MAY_IMPORT[package] | ({"clip"} if name in TOUCH_CLIP else set())
        allowed |= {"train"} if path.name == "__main__.py" else set()  # a command line
        assert found <= allowed, f"{name} imports {sorted(found - allowed)}"


def test_encoders_know_nothing_but_the_tools_of_the_engine():
    for path in source_files("encoders"):
        below = {name for name in imported(path) if name.split(".")[0] == "dassl"}
        assert all(name.startswith("dassl.utils") for name in below), path
        assert not {"yacs", "yacs.config"} & imported(path), path


@pytest.mark.slow
def test_importing_encoders_registers_nothing_and_needs_no_yacs():
    code = (
        "import sys; sys.modules['yacs'] = None; import encoders; "
        "print(*sorted(m for m in sys.modules if m.startswith(('dassl.', 'trainers', 'datasets'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = done.stdout.split()
    assert loaded and all(
        name.startswith(("dassl.utils", "dassl.stop", "dassl.command")) for name in loaded
    ), loaded


def test_the_folder_of_methods_shows_methods():
    found = {path.name: path for path in source_files("trainers")}
    assert {"zsclip.py", "coop.py", "cocoop.py", "linear_probe.py"} < found.keys()
    for name in found.keys() - SHARED - {TEMPLATES}:
        text = found[name].read_text(encoding="utf-8")
        assert "TRAINER_REGISTRY.register(" in text, f"trainers/{name} registers no method"


def test_no_method_needs_another_method_s_file():
    """Somebody else's may stand in place of it."""
    shared = {f"trainers.{name.removesuffix('.py')}" for name in (*SHARED, TEMPLATES)}
    for path in source_files("trainers"):
        for name in imported(path) - shared - {"trainers"}:
            assert not name.startswith("trainers."), f"{path.name} imports {name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "trainers":
                names = {f"{alias.name}.py" for alias in node.names}
                assert names <= SHARED, f"{path.name} imports {names}"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_circle(package: str):
    """Imports at the top of files alone: what a function imports breaks no start."""
    graph = {module_of(path): top_imports(path) for path in source_files(package)}
    graph = {name: {i for i in found if i in graph} for name, found in graph.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"circle: {' → '.join([*way[way.index(name) :], name])}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top_imports(path: Path) -> set[str]:
    """Returns the modules that importing a file imports by name, type checking included."""
    found = set()
    package = module_of(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # `from package import module` means the module, not the package.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in names if is_module(name)}
            found |= modules or {node.module}
    return found - {package}


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def test_the_entry_point_knows_no_sweep():
    found = {name.split(".")[0] for name in imported(ROOT / "train.py")} & PROJECT
    assert found == {"dassl", "datasets", "trainers"}


def test_predicting_knows_no_sweep():
    found = {name.split(".")[0] for name in imported(ROOT / "predict.py")} & PROJECT
    assert found == {"dassl", "prompts"}


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
    assert "clip" in {n.split(".")[0] for n in imported(ROOT / "encoders" / "openai.py")}
