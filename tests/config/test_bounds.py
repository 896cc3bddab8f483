"""Config files and KEY VALUE pairs that mean harm, or are not what they look like: one sentence."""

from __future__ import annotations

import codecs
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dassl.config import Config, get_cfg_default
from dassl.config.yaml_file import MAX_BYTES, read_yaml
from dassl.utils import ConfigError, MissingFileError, UserError
from tests.runs import ROOT, ours

WITHIN = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LAUGHS = "a: &a [lol, lol, lol]\n" + "".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(9))}]\n"
    for before, name in zip("abcdefghi", "bcdefghij")
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(f'*{before}' for _ in range(9))}]}}\n"
    for before, name in zip("abcdefghi", "bcdefghij")
)


def merged(tmp_path: Path, text: str | bytes) -> Config:
    cfg, path = get_cfg_default(), tmp_path / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    cfg.merge_from_file(str(path))
    return cfg


# --- files ----------------------------------------------------------------------------------------

BAD_FILES = {
    "aliases that multiply": (LAUGHS, "more than 10,000 values"),
    "merges that multiply": (MERGES, "more than 10,000 values"),
    "alias within itself": ("a: &a [*a]", "within what it stands for"),
    "alias as its own key": ("&a {*a : 1}", "is no short text"),
    "merge with itself": ("&a\n<<: *a\nx: 1", "within what it stands for"),
    "deep list": ("a: " + "[" * 3000 + "]" * 3000, "nested too deep|more than 20 deep"),
    "deep list that is open": ("a: " + "[" * 100_000, "not valid YAML|nested too deep"),
    "deep blocks": ("- " * 50_000 + "x", "nested too deep|not valid YAML"),
    "deep dictionaries": ("{a: " * 3000 + "1" + "}" * 3000, "nested too deep|more than 20 deep"),
    "deep keys": ("? " * 50_000 + "x", "nested too deep|not valid YAML"),
    "a little too deep": ("a: " + "[" * 25 + "]" * 25, "nested more than 20 deep"),
    "number of 5,000 digits": ("OPTIM: {MAX_EPOCH: " + "9" * 5000 + "}", "a number has 5,000"),
    "hexadecimal": ("OPTIM: {MAX_EPOCH: 0x" + "f" * 5000 + "}", "a number has 5,002"),
    "base sixty": ("OPTIM: {MAX_EPOCH: 1" + ":1" * 5000 + "}", "a number has 10,001"),
    "float of 5,000 digits": ("OPTIM: {LR: 0." + "9" * 5000 + "}", "a number has 5,002"),
    "number of 99 digits": ("OPTIM: {MAX_EPOCH: " + "9" * 99 + "}", r"expected a number below 2\*"),
    "number in quotes": ("OPTIM: {MAX_EPOCH: '" + "9" * 5000 + "'}", "OPTIM.MAX_EPOCH is"),
    "infinity": ("OPTIM: {LR: .inf}", "expected a finite number"),
    "no number": ("OPTIM: {LR: .nan}", "expected a finite number"),
    "no number in a list": ("INPUT: {PIXEL_MEAN: [0.1, .nan, 1.0]}", "expected a finite number"),
    "long text": ("OUTPUT_DIR: " + "x" * 20_000, "a text has 20,000 characters"),
    "long key": ("x" * 5000 + ": 1", "not valid YAML|no short text"),
    "long key in quotes": ("'" + "x" * 500 + "': 1", "no short text"),
    "large file": ("# " + "x" * MAX_BYTES, "more than 262,144 bytes"),
    "key given twice": ("OPTIM: {LR: 0.1, LR: 0.2}", "line 1: the key LR is given twice"),
    "group given twice": ("OPTIM:\n  LR: 0.1\nSEED: 1\nOPTIM:\n  GAMMA: 1.0", "line 4: the key OP"),
    "list as a key": ("[a, b]: 1", "a key is no short text"),
    "dictionary as a key": ("{a: b}: 1", "a key is no short text"),
    "number as a key": ("1: 2", "unknown config key 1 "),
    "true as a key": ("yes: 2", "unknown config key yes "),
    "nothing as a key": ("~: 2", "unknown config key ~ "),
    "dots as a key": ("..: 2", r"unknown config key \.\. "),
    "python object": ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    "python name": ("a: !!python/name:os.system", "not valid YAML"),
    "unknown tag": ("a: !evil x", "not valid YAML"),
    "set": ("SEED: !!set {a, b}", "SEED is .*expected int"),
    "pairs": ("SEED: !!omap [a: 1]", "SEED is"),
    "binary": ("SEED: !!binary '*'", "not valid YAML|cannot be read|SEED is"),
    "impossible date": ("SEED: 2000-13-40", "cannot be read"),
    "date": ("SEED: 2000-12-31", "SEED is"),
    "number that is a text": ("SEED: !!int x", "cannot be read"),
    "float that is a list": ("SEED: !!float [1]", "not valid YAML|cannot be read"),
    "nothing": ("SEED:", "SEED is None.*expected int"),
    "nothing in a group": ("OPTIM:", "OPTIM is a group of keys"),
    "two documents": ("SEED: 1\n---\nSEED: 2", "not valid YAML"),
    "list": ("- SEED: 1", "holds list"),
    "text": ("hello", "holds str"),
    "control characters": ("a: \x1b[2J", "not valid YAML"),
    "null bytes": (b"SEED: 1\0", "not valid YAML"),
    "parent that is a list": ("_BASE_: [a.yaml]", "_BASE_ is .* expected the name"),
    "parent that is a number": ("_BASE_: 3", "_BASE_ is 3 .* expected the name"),
    "parent with a null byte": ('_BASE_: "a\\0b"', "does not exist"),
    "parent that is a device": ("_BASE_: /dev/zero", "does not exist"),
    "parent that is a folder": ("_BASE_: .", "does not exist"),
    "parent that is itself": ("_BASE_: config.yaml", "inherits from itself"),
    "Latin-1": ("OUTPUT_DIR: Müller".encode("latin-1"), "not in UTF-8 .* save it as UTF-8"),
    "GBK": ("OUTPUT_DIR: 输出目录".encode("gbk"), "not in UTF-8"),
    "UTF-16 without a mark": ("SEED: 1".encode("utf-16-le"), "not valid YAML"),
    "UTF-16 cut short": (codecs.BOM_UTF16_LE + b"S", "not in UTF-16"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not in UTF-8"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(tmp_path, name):
    text, message = BAD_FILES[name]
    start = time.monotonic()
    with pytest.raises((ConfigError, MissingFileError), match=message) as caught:
        merged(tmp_path, text)
    assert time.monotonic() - start < 20
    assert str(caught.value).count("config.yaml") == 1
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1500


GOOD_FILES = {
    "mark of UTF-8": codecs.BOM_UTF8 + "OUTPUT_DIR: Müller".encode(),
    "UTF-16, little end first": codecs.BOM_UTF16_LE + "OUTPUT_DIR: Müller".encode("utf-16-le"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + "OUTPUT_DIR: Müller".encode("utf-16-be"),
    "UTF-32": "OUTPUT_DIR: Müller".encode("utf-32"),
    "lines of Windows": "SEED: -1\r\nOUTPUT_DIR: Müller\r\n".encode(),
    "anchor": "OUTPUT_DIR: &a Müller\nRESUME: *a\n".encode(),
    "merge": "OUTPUT_DIR: Müller\nOPTIM: {<<: &a {LR: 0.5}, GAMMA: 0.5}\n".encode(),
}


@pytest.mark.parametrize("name", GOOD_FILES)
def test_good_file(tmp_path, name):
    cfg = merged(tmp_path, GOOD_FILES[name])
    assert cfg.OUTPUT_DIR == "Müller"
    if name == "merge":
        assert (cfg.OPTIM.LR, cfg.OPTIM.GAMMA) == (0.5, 0.5)


def test_empty_files_and_groups_change_nothing(tmp_path):
    for text in ("", "# nothing\n", "---\n", "OPTIM: {}", "OPTIM: {}\nTRAIN: {}"):
        assert merged(tmp_path, text) == get_cfg_default()


def test_an_empty_text(tmp_path):
    assert merged(tmp_path, "OUTPUT_DIR:").OUTPUT_DIR == ""


def test_every_file_of_ours_is_read_as_before():
    import yaml

    files = ours((ROOT / "configs").rglob("*.yaml"))
    assert len(files) > 30
    for path in files:
        assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_long_line_of_ancestors(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.yaml").write_text(f"_BASE_: {i + 1}.yaml\n")
    (tmp_path / "30.yaml").write_text("SEED: 1\n")
    with pytest.raises(ConfigError, match="ancestor through _BASE_"):
        get_cfg_default().merge_from_file(str(tmp_path / "0.yaml"))
    cfg = get_cfg_default()
    cfg.merge_from_file(str(tmp_path / "15.yaml"))
    assert cfg.SEED == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(MissingFileError, match="does not exist"):
        get_cfg_default().merge_from_file(str(tmp_path / "pipe.yaml"))


@WITHIN
@given(st.binary(max_size=300))
def test_arbitrary_bytes(tmp_path, content):
    try:
        merged(tmp_path, content)
    except (ConfigError, MissingFileError) as error:
        assert "config.yaml" in str(error)


@WITHIN
@given(st.text(st.sampled_from("abOPTIMLR01.:-[]{}&*!<>|'\"#? \n\t,=%@~")))
def test_arbitrary_yaml(tmp_path, text):
    try:
        merged(tmp_path, text)
    except (ConfigError, MissingFileError) as error:
        assert "config.yaml" in str(error)


@pytest.mark.slow
@WITHIN
@given(data=st.data())
def test_mutated_files(tmp_path, data):
    files = sorted((ROOT / "configs" / "trainers").glob("*.yaml"))
    content = bytearray(data.draw(st.sampled_from(files)).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255) | st.sampled_from(b":[]{}&*!'\"- \n9")
        )
    try:
        merged(tmp_path, bytes(content))
    except (ConfigError, MissingFileError) as error:
        assert str(error)


# --- KEY VALUE pairs ------------------------------------------------------------------------------

BAD_VALUES = {
    "open brackets": "(" * 1000,
    "deep list": "[" * 80 + "]" * 80,
    "signs": "-" * 10_000 + "1",
    "sum": "1" + "+1j" * 3000,
    "not": "not " * 3000 + "1",
    "attributes": "a." * 5000 + "b",
    "long": "1," * 50_000,
    "digits": "9" * 5000,
    "hexadecimal digits": "0x" + "f" * 5000,
    "hexadecimal digits in a list": "[0x" + "f" * 5000 + "]",
    "large": "9" * 30,
    "null byte": "1\0",
    "call": "__import__('os').system('true')",
    "dictionary": "{}",
    "dictionary of lists": "{[]: 1}",
    "set of lists": "{[1]}",
    "bytes": "b'x'",
    "none": "None",
    "dots": "...",
    "empty": "",
    "half a character": "\udcff",
    "float": "1.5",
    "truth": "True",
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_value(name):
    cfg = get_cfg_default()
    with pytest.raises(ConfigError, match=r"^OPTIM\.MAX_EPOCH is ") as caught:
        cfg.merge_from_list(["OPTIM.MAX_EPOCH", BAD_VALUES[name]])
    assert len(str(caught.value)) < 1000 and cfg == get_cfg_default()


@pytest.mark.parametrize("value", ["1e400", "-1e999", "nan", "inf", "1e999-1e999", "9" * 400, "1j"])
def test_bad_rate(value):
    with pytest.raises(ConfigError, match=r"^OPTIM\.LR is "):
        get_cfg_default().merge_from_list(["OPTIM.LR", value])


@pytest.mark.parametrize(
    "key", ["", ".", "..", "OPTIM.", ".LR", "OPTIM..LR", "OPTIM.LR.X", "é" * 99]
)
def test_bad_key(key):
    with pytest.raises(ConfigError, match="unknown config key"):
        get_cfg_default().merge_from_list([key, "1"])


def test_a_group_given_from_python():
    cfg = get_cfg_default()
    cfg.merge_from_list(["OPTIM", {"LR": 0.5, "MAX_EPOCH": 3}])
    assert (cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.NAME) == (0.5, 3, "adam")
    with pytest.raises(ConfigError, match=r"unknown config key OPTIM\.RATE"):
        cfg.merge_from_list(["OPTIM", {"RATE": 0.5}])


KEYS = ("OPTIM.MAX_EPOCH", "OPTIM.LR", "INPUT.SIZE", "USE_CUDA", "OUTPUT_DIR", "INPUT.TRANSFORMS")


@WITHIN
@given(
    st.sampled_from(KEYS) | st.text(max_size=20),
    st.text(max_size=60)
    | st.text(st.sampled_from("0123456789.,()[]{}+-*'\"eEjxb_ \\"), max_size=60),
)
@example("OPTIM.LR", "1_0")
def test_arbitrary_pairs(key, value):
    cfg = get_cfg_default()
    before = {name: type(cfg[name.split(".")[0]]) for name in KEYS}
    try:
        cfg.merge_from_list([key, value])
    except UserError as error:
        assert str(error)
    assert {name: type(cfg[name.split(".")[0]]) for name in KEYS} == before
    assert type(cfg.OPTIM.LR) is float and type(cfg.OPTIM.MAX_EPOCH) is int
    assert str(cfg)
