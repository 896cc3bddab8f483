"""Names of classes that are typed, that stand in front of their classes, that mean harm."""

from __future__ import annotations

import pytest
import yaml

from dassl.data.datasets import build_dataset
from dassl.utils import DataError, UserError
from datasets.readers.class_names import class_names
from tests.datasets.build import build, change
from tests.datasets.helpers_folder import load, make_cfg, make_classes


def named(tmp_path, content: str, classes: list[str]) -> list[str]:
    (tmp_path / "names.txt").write_text(content, encoding="utf-8")
    return class_names(str(tmp_path / "names.txt"), classes, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"hooded crow": "crow", "blue jay": "jay"}',
        "blue jay,jay\nhooded crow,crow",
        "name,folder\nblue jay,jay\nhooded crow,crow",
        "hooded crow\tcrow\nblue jay\tjay",
    ],
)
def test_names_in_front_of_their_classes(tmp_path, text):
    assert named(tmp_path, text, ["crow", "jay"]) == ["hooded crow", "blue jay"]


def test_names_that_end_with_classes(tmp_path):
    """In label order they may; in another they were paired with the wrong ones."""
    assert named(tmp_path, "hooded crow\nblue jay", ["crow", "jay"]) == ["hooded crow", "blue jay"]
    assert named(tmp_path, "house boat\ntree house", ["boat", "house"])[0] == "house boat"
    with pytest.raises(DataError, match="has 'blue jay' at place 1, where the class is 'crow'"):
        named(tmp_path, "blue jay\nhooded crow", ["crow", "jay"])


@pytest.mark.parametrize(
    "typed",
    [
        *("a bird,jay", "[a bird, jay]", "['a bird', 'jay']", '["a bird", "jay"]', "(a bird,jay)"),
        *("{'0': 'a bird', '1': 'jay'}", "{0: 'a bird', 1: 'jay'}", "{c2: jay, c1: a bird}"),
        *('{"c1": "a bird", "c2": "jay"}', "{'c2':'jay','c1':'a bird'}", "{a bird: c1, jay: c2}"),
        {"c1": "a bird", "c2": "jay"},
    ],
)
def test_names_that_are_typed(tmp_path, typed):
    """Also with the quotes that a shell takes away."""
    root = make_classes(tmp_path, 3, ("c1", "c2"))
    assert load(root, CLASSNAMES=typed).classnames == ["a bird", "jay"]


@pytest.mark.parametrize(
    "typed",
    ["['a bird','jay'", "[a, b", "{c1: a", "{'c1': 'a', 'c1': 'b'}", "{'a', 'b'}", "[[a], b]"],
)
def test_what_is_typed_wrongly(tmp_path, typed):
    root = make_classes(tmp_path, 3, ("c1", "c2"))
    with pytest.raises(UserError, match=r"DATASET\.CLASSNAMES"):
        load(root, CLASSNAMES=typed)


def test_names_in_a_configuration_file(tmp_path):
    root = make_classes(tmp_path / "birds", 3, ("c1", "c2"))
    cfg = make_cfg(ROOT=str(root))
    cfg.defrost()
    (tmp_path / "a.yaml").write_text("DATASET:\n  CLASSNAMES: {c1: a bird, c2: jay}\n")
    cfg.merge_from_file(str(tmp_path / "a.yaml"))
    assert build_dataset(cfg).classnames == ["a bird", "jay"]
    assert yaml.safe_load(cfg.dump())["DATASET"]["NAME"] == "Folder"  # it can be written


# --- prompts and logs -----------------------------------------------------------------------------


def test_names_that_only_look_alike(tmp_path, capsys):
    root = make_classes(tmp_path, 4, ("crow", "crow\u200b", "jay"))
    load(root)
    assert r"one and the same prompt: 'crow' = 'crow\u200b'" in capsys.readouterr().out
    load(root, CLASSNAMES="a,b,b")
    assert r"one and the same prompt: 'crow\u200b' = 'jay'" in capsys.readouterr().out


def test_line_breaks_in_names_make_no_lines(tmp_path, capsys):
    """Of classes, of files that are passed over, and of images that cannot be read."""
    root = make_classes(tmp_path, 4, ("crow\nerror: a", "jay\r", "wren\t\x1b[2J"))
    (root / "jay\r" / "notes\nerror: b").write_text("no image")
    assert load(root).classnames == ["crow error: a", "jay", "wren [2J"]
    (root / "jay\r" / "x\nerror: c.jpg").write_text("no image")
    with pytest.raises(DataError) as caught:
        load(root)
    said = capsys.readouterr().out + str(caught.value)
    assert r"crow\nerror: a -> crow error: a" in said and r"notes\nerror: b" in said
    assert r"x\nerror: c.jpg" in said
    assert not any(line.startswith("error") for line in said.splitlines())


def test_line_breaks_in_the_names_of_a_split_file(eurosat):
    def spoil(lists):
        for row in [row for part in lists.values() for row in part]:
            row[2] += "\nerror: all is lost"

    change(eurosat, spoil)
    assert build("EuroSAT", eurosat).classnames[0] == "Annual Crop Land error: all is lost"


def test_prompts_without_words_are_said(tmp_path, capsys):
    for names, say in ((("0.5", "1.5"), "'0.5', '1.5'"), (("0,0", "1,0"), "'0,0', '1,0'")):
        load(make_classes(tmp_path / names[0], 3, names))
        assert f"the prompts will say {say}, ...; give names" in capsys.readouterr().out
    load(make_classes(tmp_path / "c", 3, ("crow", "NaN")))
    out = capsys.readouterr().out
    assert "NaN counts as a class; does it mean: no label?" in out and "will say" not in out
