"""Two files that register one name; files beside a trainer; a file in place of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

import trainers
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import ConfigError, Registry
from dassl.utils.registry import file_of
from tests.porting.conftest import FILES
from tests.porting.test_settings import settings

MINI = (FILES / "mini_head.py").read_text("utf-8")


def test_two_files_of_somebody_else(foreign, tmp_path: Path):
    first, second = foreign("one", one=MINI), foreign("two", two=MINI)
    with pytest.raises(ConfigError) as caught:
        settings("MiniHead")
    for path in (first, second):
        assert str(path) in str(caught.value)
    assert "force=True" in str(caught.value)
    assert not trainers.failed_imports, "both can be imported"


def test_the_name_of_one_of_ours(foreign):
    path = foreign("theirs", theirs=MINI.replace("MiniHead", "CoOp"))
    with pytest.raises(ConfigError) as caught:
        settings("CoOp", "MODEL.BACKBONE.NAME", "tiny")
    assert str(path) in str(caught.value) and "trainers/coop.py" in str(caught.value)
    settings("CoCoOp", "MODEL.BACKBONE.NAME", "tiny")  # others are not concerned


def test_force_decides(foreign):
    foreign("one", one=MINI)
    foreign("two", two=MINI.replace("register()", "register(force=True)"))
    assert TRAINER_REGISTRY.get("MiniHead").__module__ == "trainers.two"


def test_the_same_file_may_run_again():
    registry = Registry("THING")
    classes = [type("Thing", (), {"__module__": __name__}) for _ in range(2)]
    for cls in classes:  # as a cell of a notebook
        registry.register(cls)
    assert registry.get("Thing") is classes[1]


IMPORTS = {
    "relative": "from .mini_parts import VALUE",
    "plain": "from mini_parts import VALUE",
    "of the package": "from trainers.mini_folder.inner import VALUE",
    "of a plain folder": "from mini_folder.inner import VALUE",
    "of a folder, relative": "from .mini_folder.inner import VALUE",
}


@pytest.mark.parametrize("line", IMPORTS.values(), ids=IMPORTS)
def test_what_lies_beside_a_trainer_is_found(foreign, tmp_path: Path, line: str):
    (tmp_path / "mini_folder").mkdir()
    (tmp_path / "mini_folder/inner.py").write_text("VALUE = 7\n")
    foreign("mini", mini=f"{line}\n{MINI}", mini_parts="VALUE = 7\n")
    assert TRAINER_REGISTRY.get("MiniHead") is trainers.modules["mini"].MiniHead


def test_a_file_that_fails_is_not_kept(foreign):
    with pytest.raises(ZeroDivisionError):
        foreign("bad", bad="1 / 0\n")
    assert "bad" not in trainers.modules


def test_a_file_elsewhere_is_tried_in_place_of_ours(foreign):
    path = foreign("kgcoop", kgcoop=MINI.replace("MiniHead", "KgCoOp"))
    assert file_of(TRAINER_REGISTRY.get("KgCoOp")) == path
