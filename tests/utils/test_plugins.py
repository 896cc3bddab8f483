"""Packages whose files are imported one by one, good ones and broken ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from yacs.config import CfgNode

from dassl.utils.plugins import extend_cfg_by, import_files


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package of one good file, one without settings, a broken one and a command line."""
    folder = tmp_path / "plugged"
    folder.mkdir()
    files = {
        "__init__": "from dassl.utils.plugins import import_files\n"
        "modules, failed_imports = import_files(__name__, __path__)",
        "__main__": "raise SystemExit('the command line ran')",
        "bare": "",
        "broken": "import no_such_library",
        "good": "def extend_cfg(cfg):\n    cfg.GOOD = 1",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("plugged")
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugged"]:
        del sys.modules[name]


def test_a_broken_file_does_not_stop_the_others(package):
    assert list(package.modules) == ["bare", "good"]
    assert package.modules["good"] is sys.modules["plugged.good"]
    assert list(package.failed_imports) == ["broken.py"]
    assert "no_such_library" in str(package.failed_imports["broken.py"])


def test_files_of_settings_and_folders_are_no_plugins(package):
    folder = Path(package.__path__[0])
    (folder / "good").mkdir()
    (folder / "good/__init__.py").touch()
    for name in ("train", "bare_cfg"):
        (folder / f"{name}.py").write_text("raise SystemExit('it ran')\n")
    modules, failed = import_files("plugged", package.__path__)
    assert list(modules) == ["bare"]
    assert "the folder good/ hides it" in str(failed["good.py"])


def test_imported_twice_is_the_same(package):
    assert import_files("plugged", package.__path__)[0] == package.modules


def test_settings_of_those_that_have_some(package):
    cfg = CfgNode()
    extend_cfg_by(package.modules.values(), cfg)
    assert cfg == {"GOOD": 1}
